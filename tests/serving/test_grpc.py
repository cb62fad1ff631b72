"""The protocol over gRPC with its own client (tritonclient.grpc): sync, asyncio and stream."""

import asyncio
import base64
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import aio, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier, pixels
from support.typed_model import CONTENTS, VALUES, typed_model

GUARD_S = 30.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return classifier(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, model: TinyModel) -> Iterator[ServingProcess]:
    folder = tmp_path_factory.mktemp("serving")
    with serving(folder, "--serve-grpc", "127.0.0.1:0") as running:
        typed = [typed_model(folder, datatype) for datatype in VALUES]
        running.apply(model.activate("7"), *typed)
        yield running


@pytest.fixture(scope="module")
def address(process: ServingProcess) -> str:
    return process.status().grpc


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as connected:
        yield connected


@pytest.fixture
def stub(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def asked(given: np.ndarray[Any, Any], name: str = "pixels", datatype: str = "FP32") -> Any:
    tensor = triton.InferInput(name, list(given.shape), datatype)
    tensor.set_data_from_numpy(given)
    return tensor


def same(got: np.ndarray[Any, Any], datatype: str) -> bool:
    if datatype == "BYTES":
        return [one.decode() for one in got.ravel()] == list(VALUES["BYTES"].ravel())
    return bool(np.array_equal(got, VALUES[datatype]) and got.dtype == VALUES[datatype].dtype)


def typed_request(datatype: str, values: list[Any], **more: Any) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=datatype.lower(), **more)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 3])
    getattr(tensor.contents, CONTENTS[datatype]).extend(values)
    return request


@pytest.mark.parametrize("datatype", VALUES)
def test_each_datatype_comes_back_as_it_went(
    client: triton.InferenceServerClient, datatype: str
) -> None:
    result = client.infer(datatype.lower(), [asked(VALUES[datatype], "x", datatype)])
    assert same(result.as_numpy("y"), datatype)
    assert len(result.get_response().raw_output_contents) == 1


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_are_answered_with_typed_contents(stub: Any, datatype: str) -> None:
    values = VALUES[datatype].ravel().tolist()
    sent = [one.encode() for one in values] if datatype == "BYTES" else values
    answer = stub.ModelInfer(typed_request(datatype, sent))
    assert not answer.raw_output_contents
    assert list(getattr(answer.outputs[0].contents, CONTENTS[datatype])) == sent
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [1, 3])


@pytest.mark.parametrize("datatype", VALUES)
def test_each_datatype_goes_through_asyncio_and_a_stream(address: str, datatype: str) -> None:
    async def story() -> None:
        async with aio.InferenceServerClient(address) as client:
            tensor = asked(VALUES[datatype], "x", datatype)
            result = await client.infer(datatype.lower(), [tensor])
            assert same(result.as_numpy("y"), datatype)

            async def requests() -> Any:
                for number in range(3):
                    yield {
                        "model_name": datatype.lower(),
                        "inputs": [tensor],
                        "request_id": str(number),
                    }

            ids = []
            async for answer, error in client.stream_infer(requests()):
                assert error is None
                assert same(answer.as_numpy("y"), datatype)
                ids.append(answer.get_response().id)
            assert ids == ["0", "1", "2"]

    asyncio.run(story())


def test_a_large_tensor_comes_back(
    client: triton.InferenceServerClient, stub: Any, model: TinyModel, process: ServingProcess
) -> None:
    given = pixels(8)
    ids = "x" * 200
    result = client.infer("digits", [asked(given)], request_id=ids, model_version="7")
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), model.probabilities(given), rtol=1e-4
    )
    assert (result.get_response().id, result.get_response().model_version) == (ids, "7")
    request = service_pb2.ModelInferRequest(model_name="digits")
    request.inputs.add(name="pixels", datatype="FP32", shape=[1, 150_528])
    request.raw_input_contents.append(bytes(602_112))
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "pixels: The model needs shape [-1, 64], not [1, 150528]." in refused.value.details()


def test_a_stream_goes_on_after_an_error(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    wrong = asked(np.zeros((1, 3), np.float32))
    client.async_stream_infer("digits", [wrong])
    client.async_stream_infer(
        "digits", [asked(pixels(1))], enable_empty_final_response=True, request_id="second"
    )
    _, error = answers.get(timeout=GUARD_S)
    assert "pixels: The model needs shape [-1, 64], not [1, 3]." in str(error)
    result, error = answers.get(timeout=GUARD_S)
    client.stop_stream()
    assert error is None
    assert result.get_response().id == "second"
    assert result.get_response().parameters["triton_final_response"].bool_param is True


def test_classes_are_given_in_their_order(
    client: triton.InferenceServerClient, model: TinyModel
) -> None:
    given = pixels(1)
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
    got = client.infer("digits", [asked(given)], outputs=wanted).as_numpy("probabilities")
    best = model.probabilities(given)[0].argsort()[::-1][:3]
    assert [int(one.split(b":")[1]) for one in got.ravel()] == best.tolist()


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_messages_are_read_and_answered(
    client: triton.InferenceServerClient, compression: str, model: TinyModel
) -> None:
    given = pixels(8)
    result = client.infer("digits", [asked(given)], compression_algorithm=compression)
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), model.probabilities(given), rtol=1e-4
    )


def test_the_client_reads_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "7")
    assert not client.is_model_ready("digits", "8")
    assert not client.is_model_ready("other")
    server = client.get_server_metadata()
    assert (server.name, "statistics" in server.extensions) == ("edgefleet", True)
    metadata = client.get_model_metadata("digits")
    assert (list(metadata.versions), metadata.platform) == (["7"], "onnxruntime_onnx")
    (tensor,) = metadata.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("pixels", "FP32", [-1, 64])


def test_the_client_reads_configuration_index_and_statistics(
    client: triton.InferenceServerClient, model: TinyModel
) -> None:
    config = client.get_model_config("digits").config
    assert (config.max_batch_size, config.backend) == (model.variant.max_batch, "onnxruntime")
    assert (config.input[0].data_type, list(config.input[0].dims)) == (11, [64])
    assert (config.instance_group[0].kind, config.parameters["precision"].string_value) == (
        2,
        "fp32",
    )
    index = {one.name: one.state for one in client.get_model_repository_index().models}
    assert index == dict.fromkeys(("digits", *map(str.lower, VALUES)), "READY")

    def counts() -> tuple[int, int]:
        (stats,) = client.get_inference_statistics("digits").model_stats
        return stats.inference_stats.success.count, stats.inference_count

    before = counts()
    client.infer("digits", [asked(pixels(3))])
    after = counts()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 3)
    assert len(client.get_inference_statistics().model_stats) == 1 + len(VALUES)


def test_what_is_off_says_so_and_changing_it_is_refused(
    client: triton.InferenceServerClient,
) -> None:
    assert list(client.get_trace_settings().settings["trace_level"].value) == ["OFF"]
    assert client.update_trace_settings("digits", {"trace_level": ["OFF"]})
    assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 0
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    for call, text in (
        (lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}), "OFF"),
        (lambda: client.update_log_settings({"log_verbose_level": 3}), "log_verbose_level"),
        (lambda: client.register_system_shared_memory("r", "/r", 8), "shared memory"),
        (
            lambda: client.register_cuda_shared_memory("r", base64.b64encode(b"abc"), 0, 8),
            "shared memory",
        ),
        (lambda: client.load_model("digits"), "rollout"),
        (lambda: client.unload_model("digits"), "rollout"),
    ):
        with pytest.raises(InferenceServerException, match=text) as refused:
            call()
        assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def raw(**changes: Any) -> service_pb2.ModelInferRequest:
    """A valid request for ``digits``, with changes."""
    request = service_pb2.ModelInferRequest(model_name="digits")
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, 64], **changes}
    contents = tensor.pop("raw", [bytes(256)])
    fields = {name: tensor.pop(name) for name in ("model_name", "id") if name in tensor}
    request.MergeFrom(service_pb2.ModelInferRequest(**fields))
    request.inputs.add(**tensor)
    request.raw_input_contents.extend(contents)
    return request


def with_parameter(name: str, **value: Any) -> service_pb2.ModelInferRequest:
    request = raw()
    request.parameters[name].MergeFrom(service_pb2.InferParameter(**value))
    return request


def mixed() -> service_pb2.ModelInferRequest:
    request = raw()
    request.inputs[0].contents.fp32_contents.extend([0.0] * 64)
    return request


def shared() -> service_pb2.ModelInferRequest:
    request = raw()
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return request


def output(name: str) -> service_pb2.ModelInferRequest:
    request = raw()
    request.outputs.add(name=name)
    return request


NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
REFUSED = {
    "another model": (raw(model_name="other"), NOT_FOUND, "other"),
    "another input": (raw(name="image"), INVALID, "image"),
    "another datatype": (raw(datatype="INT8"), INVALID, "needs FP32, not INT8"),
    "another shape": (raw(shape=[1, 65]), INVALID, "needs shape [-1, 64]"),
    "a negative size": (raw(shape=[-1, 64]), INVALID, "needs shape [-1, 64]"),
    "too large a batch": (raw(shape=[9, 64], raw=[bytes(9 * 256)]), INVALID, "8 are allowed"),
    "too few bytes": (raw(raw=[bytes(255)]), INVALID, "has 256 bytes, not 255"),
    "no contents": (raw(raw=[]), INVALID, "1 inputs and 0 raw contents"),
    "two contents": (raw(raw=[bytes(256)] * 2), INVALID, "1 inputs and 2 raw contents"),
    "both contents": (mixed(), INVALID, "may not be mixed"),
    "no input": (service_pb2.ModelInferRequest(model_name="digits"), INVALID, "missing"),
    "an unknown output": (output("other"), INVALID, "probabilities"),
    "shared memory": (shared(), INVALID, "shared memory"),
    "a sequence": (with_parameter("sequence_id", int64_param=3), INVALID, "Sequences"),
    "a priority": (with_parameter("priority", uint64_param=1), INVALID, "Priorities"),
    "a bad timeout": (with_parameter("timeout", string_param="x"), INVALID, "timeout"),
    "a long id": (raw(id="x" * 257), INVALID, "256 characters"),
    **{
        f"{datatype} as typed contents": (
            service_pb2.ModelInferRequest(
                model_name=datatype.lower(),
                inputs=[
                    service_pb2.ModelInferRequest.InferInputTensor(
                        name="x",
                        datatype=datatype,
                        shape=[1, 3],
                        contents=service_pb2.InferTensorContents(fp32_contents=[1.0] * 3),
                    )
                ],
            ),
            INVALID,
            f"x: {datatype} has no typed contents",
        )
        for datatype in ("FP16", "BF16")
    },
    "BF16 of another size": (
        service_pb2.ModelInferRequest(
            model_name="bf16",
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name="x", datatype="BF16", shape=[1, 3]
                )
            ],
            raw_input_contents=[bytes(12)],
        ),
        INVALID,
        "x: BF16 [1, 3] has 6 bytes, not 12.",
    ),
    "another field": (
        service_pb2.ModelInferRequest(
            model_name="int8",
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name="x",
                    datatype="INT8",
                    shape=[1, 3],
                    contents=service_pb2.InferTensorContents(int64_contents=[1, 2, 3]),
                )
            ],
        ),
        INVALID,
        "int_contents, not in int64_contents",
    ),
    "a value too large": (typed_request("INT8", [1, 2, 128]), INVALID, "does not fit INT8"),
    "too few values": (typed_request("UINT64", [1, 2]), INVALID, "has 2 values"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_wrong_request_is_refused_with_the_input_named(stub: Any, fault: str) -> None:
    request, code, text = REFUSED[fault]
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request)
    assert (refused.value.code(), text in refused.value.details()) == (code, True), (
        refused.value.details()
    )


def test_a_repeated_request_is_answered_anew(stub: Any, model: TinyModel) -> None:
    """The head is read once. Its tensor, and a request that differs in one byte, are not."""
    for place in range(4):
        given = np.zeros((1, 64), np.float32)
        given[0, place] = 1.0
        answer = stub.ModelInfer(raw(raw=[given.tobytes()]))
        got = np.frombuffer(answer.raw_output_contents[0], np.float32)
        np.testing.assert_allclose(got, model.probabilities(given)[0], rtol=1e-4)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(raw(name="pixelz"))
    assert refused.value.code() == INVALID


def test_a_remembered_head_is_checked_again_for_another_release(
    tmp_path: Path, model: TinyModel
) -> None:
    other = classifier(tmp_path / "renamed.onnx", seed=2, input_name="image")
    with serving(tmp_path, "--serve-grpc", "127.0.0.1:0") as running:
        running.apply(model.activate("1"))
        with grpc.insecure_channel(running.status().grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ModelInfer(raw()).model_version == "1"
            running.apply(other.activate("2"), generation=2)
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelInfer(raw())
            assert "the model has inputs ['image']" in refused.value.details()
            _, call = stub.ModelInfer.with_call(raw(name="image"))
            assert ("edgefleet-generation", "2") in call.initial_metadata()


def test_a_process_without_the_option_has_no_grpc(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        assert running.status().grpc == ""
        maps = Path(f"/proc/{running.pid}/maps").read_text()
        assert "hpack" not in maps
