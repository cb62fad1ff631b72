"""The protocol with its own client (tritonclient), and refused requests."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from edgefleet.base.network import Answer, HttpLink
from edgefleet.protocol.release import Quality, TensorSpec
from edgefleet.protocol.serving import ServedModel, ServedRelease
from support.serving_process import ServingProcess, serving
from support.tiny_models import TinyModel, classifier, pixels, save, variant_of

INFER = "/v2/models/digits/infer"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return classifier(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, model: TinyModel) -> Iterator[ServingProcess]:
    with serving(tmp_path_factory.mktemp("serving")) as running:
        running.activate(model.activate("7"))
        yield running


@pytest.fixture
def client(process: ServingProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(process.address) as connected:
        yield connected


def asked(given: np.ndarray[Any, Any], *, binary: bool) -> list[triton.InferInput]:
    tensor = triton.InferInput("pixels", list(given.shape), np_to_triton_dtype(given.dtype))
    tensor.set_data_from_numpy(given, binary_data=binary)
    return [tensor]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_the_client_gets_what_the_model_computes(
    client: triton.InferenceServerClient, model: TinyModel, binary_in: bool, binary_out: bool
) -> None:
    given = pixels(3)
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
    result = client.infer(
        "digits", asked(given, binary=binary_in), outputs=wanted, request_id="mine"
    )
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), model.probabilities(given), rtol=1e-4
    )
    said = result.get_response()
    assert (said["model_version"], said["id"]) == ("7", "mine")


def test_all_outputs_are_given_when_none_is_named(
    client: triton.InferenceServerClient, model: TinyModel
) -> None:
    given = pixels(1)
    result = client.infer("digits", asked(given, binary=True), model_version="7")
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
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    said = client.get_model_metadata("digits")
    assert said["versions"] == ["7"]
    assert said["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]
    assert said["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]


def test_a_raw_body_is_one_tensor(process: ServingProcess, model: TinyModel) -> None:
    given = pixels(1)
    answer = HttpLink(process.url).request(
        "POST",
        INFER,
        body=given.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    size = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.body[:size])["outputs"][0]["parameters"] == {"binary_data_size": 40}
    got = np.frombuffer(answer.body[size:], "<f4").reshape(1, 10)
    np.testing.assert_allclose(got, model.probabilities(given), rtol=1e-4)


def body(**changes: Any) -> bytes:
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}
    return json.dumps({"inputs": [{**tensor, **changes}]}).encode()


REFUSED: dict[str, tuple[bytes, dict[str, str]]] = {
    "no JSON": (b"{", {}),
    "no inputs": (b"{}", {}),
    "an empty body": (b"", {}),
    "an empty list of inputs": (b'{"inputs":[]}', {}),
    "another name": (body(name="image"), {}),
    "another datatype": (body(datatype="FP64"), {}),
    "an unknown datatype": (body(datatype="FLOAT"), {}),
    "another rank": (body(shape=[64]), {}),
    "another size": (body(shape=[1, 63], data=[0.5] * 63), {}),
    "a negative size": (body(shape=[-1, 64]), {}),
    "no items": (body(shape=[0, 64], data=[]), {}),
    "a batch that is too large": (body(shape=[9, 64], data=[0.5] * 64 * 9), {}),
    "too few values": (body(data=[0.5] * 63), {}),
    "text for numbers": (body(data=["x"] * 64), {}),
    "nothing for a number": (body(data=[None] * 64), {}),
    "ragged rows": (body(data=[[0.5] * 63, [0.5]]), {}),
    "rows of another shape": (body(data=[[0.5] * 32] * 2), {}),
    "a number beyond its type": (body(data=[1e39] * 64), {}),
    "NaN, which JSON lacks": (body(data=[float("nan")] * 64), {}),
    "no data": (b'{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32"}]}', {}),
    "the same input twice": (
        b'{"inputs":[' + b",".join([body()[12:-2]] * 2) + b"]}",
        {},
    ),
    "an unknown output": (body()[:-1] + b',"outputs":[{"name":"x"}]}', {}),
    "an output twice": (
        body()[:-1] + b',"outputs":[{"name":"probabilities"},{"name":"probabilities"}]}',
        {},
    ),
    "no class": (
        body()[:-1] + b',"outputs":[{"name":"probabilities","parameters":{"classification":0}}]}',
        {},
    ),
    "an output in shared memory": (
        body()[:-1]
        + b',"outputs":[{"name":"probabilities","parameters":{"shared_memory_region":"r"}}]}',
        {},
    ),
    "an input in shared memory": (body(parameters={"shared_memory_region": "r"}), {}),
    "a sequence": (body()[:-1] + b',"parameters":{"sequence_id":3}}', {}),
    "a priority": (body()[:-1] + b',"parameters":{"priority":1}}', {}),
    "a timeout that is no number": (body()[:-1] + b',"parameters":{"timeout":"soon"}}', {}),
    "a negative timeout": (body()[:-1] + b',"parameters":{"timeout":-1}}', {}),
    "data that is null": (body(data=None), {}),
    "binary data beyond the body": (
        body(data=[], parameters={"binary_data_size": 256}),
        {},
    ),
    "bytes of nobody": (body() + b"xx", {"Inference-Header-Content-Length": str(len(body()))}),
    "a JSON length beyond the body": (body(), {"Inference-Header-Content-Length": "99999"}),
    "a JSON length that is no number": (body(), {"Inference-Header-Content-Length": "-1"}),
    "a raw body of another size": (bytes(10), {"Inference-Header-Content-Length": "0"}),
    "a body that is not compressed as it says": (body(), {"Content-Encoding": "gzip"}),
    "a body that ends early": (gzip.compress(body())[:-9], {"Content-Encoding": "gzip"}),
    "another compression": (body(), {"Content-Encoding": "br"}),
    "two compressions": (gzip.compress(body()), {"Content-Encoding": "gzip, gzip"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_a_typed_400_and_counts_as_no_success(
    process: ServingProcess, name: str
) -> None:
    data, headers = REFUSED[name]
    before = process.model().stats
    answer = HttpLink(process.url).request("POST", INFER, body=data, headers=headers)
    assert answer.status == 400, answer.body
    said = json.loads(answer.body)
    assert said["code"] == "bad_request"
    assert said["error"]
    assert said["hint"]
    after = process.model().stats
    assert (after.requests, after.errors) == (before.requests, before.errors)
    assert after.confidence_count == before.confidence_count
    assert after.refused == before.refused + 1


def test_nested_data_is_taken_as_flat_data_is(process: ServingProcess, model: TinyModel) -> None:
    given = pixels(2)
    nested, flat = (
        HttpLink(process.url).request("POST", INFER, body=body(shape=[2, 64], data=data))
        for data in (given.tolist(), given.ravel().tolist())
    )
    assert json.loads(nested.body)["outputs"] == json.loads(flat.body)["outputs"]
    assert nested.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nosuch", 404, "not_found"),
        ("GET", "/v2/models/other", 404, "not_found"),
        ("GET", "/v2/models/digits/versions/8", 404, "not_found"),
        ("POST", "/v2/models/other/infer", 404, "not_found"),
        ("POST", "/v2/models/digits/versions/8/infer", 404, "not_found"),
        ("GET", INFER, 405, "method_not_allowed"),
        ("POST", "/v2/models/digits", 405, "method_not_allowed"),
        ("GET", "/control/status", 404, "not_found"),
        ("POST", "/control/apply", 404, "not_found"),
    ],
)
def test_other_paths_and_verbs_are_typed_errors(
    process: ServingProcess, method: str, path: str, status: int, code: str
) -> None:
    answer = HttpLink(process.url).request(method, path, body=b"" if method == "POST" else None)
    assert (answer.status, json.loads(answer.body)["code"]) == (status, code)


TYPES = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False, True]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 1, 255]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 1, 65_535]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 1, 2**32 - 1]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 1, 2**64 - 1]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[-128, 1, 127]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[-32_768, 1, 32_767]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[-(2**31), 1, 2**31 - 1]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[-(2**63), 1, 2**63 - 1]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[0.5, -1.0, 65_504.0]], np.float16)),
    "FP32": (TensorProto.FLOAT, np.array([[0.1, -1.0, 3e38]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[0.1, -1.0, 1e308]], np.float64)),
    "BYTES": (TensorProto.STRING, np.array([["", "é", "a\0b"]], np.object_)),
}


@pytest.fixture(scope="module", params=["shared", "process"])
def every_type(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingProcess]:
    """A model that returns an input of each datatype, and scores. In a worker, too."""
    folder = tmp_path_factory.mktemp("types")
    names = [name for name in TYPES if name != "FP32"]
    kinds = {**{name: TYPES[name][0] for name in names}, "FP32": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(n, kinds[n], ["b", 3]) for n in kinds]
    outputs = [helper.make_tensor_value_info(f"o{n}", kinds[n], ["b", 3]) for n in kinds]
    nodes = [helper.make_node("Identity", [n], [f"o{n}"]) for n in kinds]
    save(folder / "m.onnx", nodes, inputs, outputs, [])
    variant = variant_of(
        folder / "m.onnx",
        tuple(TensorSpec(name=n, datatype=n, shape=(-1, 3)) for n in kinds),  # type: ignore[arg-type] # the keys are datatypes
        tuple(TensorSpec(name=f"o{n}", datatype=n, shape=(-1, 3)) for n in kinds),  # type: ignore[arg-type] # as above
    )
    with serving(folder) as running:
        running.activate(
            ServedModel(
                model="types",
                isolation=request.param,
                confirmed=ServedRelease(
                    release="1",
                    variant=variant,
                    quality=Quality(output="oFP32", scores="logits"),
                    artifact_path=str(folder / "m.onnx"),
                ),
            )
        )
        yield running


@pytest.mark.parametrize("datatype", TYPES)
@pytest.mark.parametrize("binary", [False, True])
def test_each_datatype_comes_back_as_it_went(
    every_type: ServingProcess, datatype: str, binary: bool
) -> None:
    with triton.InferenceServerClient(every_type.address) as client:
        inputs = []
        for name, (_, values) in TYPES.items():
            tensor = triton.InferInput(name, [1, 3], name)
            # The client itself sends no FP16 as JSON; the test below does.
            tensor.set_data_from_numpy(
                values, binary_data=name != datatype or binary or name == "FP16"
            )
            inputs.append(tensor)
        wanted = [triton.InferRequestedOutput(f"o{datatype}", binary_data=binary)]
        got = client.infer("types", inputs, outputs=wanted).as_numpy(f"o{datatype}")
    values = TYPES[datatype][1]
    if datatype == "BYTES":
        assert [text.decode() if isinstance(text, bytes) else text for text in got.ravel()] == list(
            values.ravel()
        )
    else:
        np.testing.assert_array_equal(got, values)


def test_half_floats_are_json_both_ways(every_type: ServingProcess) -> None:
    inputs = [
        {"name": name, "shape": [1, 3], "datatype": name, "data": values.ravel().tolist()}
        for name, (_, values) in TYPES.items()
    ]

    def ask(half: object) -> Answer:
        changed = [one | {"data": half} if one["name"] == "FP16" else one for one in inputs]
        asked = {"inputs": changed, "outputs": [{"name": "oFP16"}]}
        link = HttpLink(every_type.url)
        return link.request("POST", "/v2/models/types/infer", body=json.dumps(asked).encode())

    (got,) = json.loads(ask([0.1, -1, 65_504]).body)["outputs"]
    assert (got["datatype"], got["data"]) == ("FP16", [float(np.float16(0.1)), -1.0, 65_504.0])
    refused = ask([0.1, -1, 70_000])
    assert refused.status == 400
    assert json.loads(refused.body)["error"].startswith("FP16: data is not a FP16 tensor")


def test_text_that_is_not_utf8_and_another_datatype_are_refused_with_a_sentence(
    every_type: ServingProcess,
) -> None:
    with triton.InferenceServerClient(every_type.address) as client:

        def refusal(name: str, datatype: str, values: object) -> str:
            inputs = []
            for other, (_, right) in TYPES.items():
                tensor = triton.InferInput(other, [1, 3], datatype if other == name else other)
                tensor.set_data_from_numpy(values if other == name else right, binary_data=True)
                inputs.append(tensor)
            with pytest.raises(InferenceServerException) as caught:
                client.infer("types", inputs)
            return str(caught.value)

        raw = np.array([[b"\xff", b"a", b"b"]], np.object_)
        assert "BYTES: The runtime accepts text in UTF-8 only." in refusal("BYTES", "BYTES", raw)
        halves = np.zeros((1, 3), ml_dtypes.bfloat16)
        assert "FP32: The model needs FP32, not BF16." in refusal("FP32", "BF16", halves)


def test_nothing_is_served_before_the_first_activation(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        link = HttpLink(process.url)

        def refusal(answer: Answer) -> tuple[int, str]:
            return answer.status, json.loads(answer.body)["code"]

        assert link.request("GET", "/v2/health/live").status == 200
        for path in ("/v2/health/ready", "/v2/models/digits", "/v2/models/digits/ready"):
            assert refusal(link.request("GET", path)) == (503, "not_ready")
        answer = link.request("POST", INFER, body=body())
        assert refusal(answer) == (503, "not_ready")
        assert answer.headers["retry-after"] == "1"
        assert not process.status().models


def test_a_model_that_fails_is_an_error_of_the_release(tmp_path: Path) -> None:
    """A model that pairs the items of a batch, so an odd batch fails."""
    node = helper.make_node("Reshape", ["pixels", "shape"], ["scores"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 128])
    path = tmp_path / "m.onnx"
    save(
        path,
        [node],
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["b", "n"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["c", 128])],
        [shape],
    )
    variant = variant_of(
        path,
        (TensorSpec(name="pixels", datatype="FP32", shape=(-1, -1)),),
        (TensorSpec(name="scores", datatype="FP32", shape=(-1, 128)),),
    )
    with serving(tmp_path) as process:
        process.activate(
            ServedModel(
                model="digits",
                confirmed=ServedRelease(
                    release="1",
                    variant=variant,
                    quality=Quality(output="scores", scores="logits"),
                    artifact_path=str(path),
                ),
            )
        )
        link = HttpLink(process.url)
        answer = link.request("POST", INFER, body=body())
        assert answer.status == 500
        assert json.loads(answer.body)["code"] == "inference_failed"
        assert link.request("POST", INFER, body=body(shape=[2, 64], data=[1] * 128)).status == 200
        stats = process.model().stats
        assert (stats.requests, stats.errors) == (2, 1)
