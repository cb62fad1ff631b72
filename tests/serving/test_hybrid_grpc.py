"""Calls over gRPC that the fallback answers, with the client of grpcio."""

import contextlib
import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.fallback import FallbackSettings, read_fallback
from edgefleet.serving.limits import FALLBACK_FAILURES, QUEUED
from edgefleet.serving.rest import Rest
from edgefleet.serving.stats import Stats
from support.fallback_server import Behaviour, FallbackServer, Forwarded, fallback, hangs
from support.grpc_inside import Inside, gated_server
from support.serving_process import serving
from support.tiny_models import TinyModel, classifier
from support.typed_model import VALUES, typed_model
from support.waiting import until

GUARD_S = 30.0
Code = grpc.StatusCode
SCORES = np.array([[0.25, 0.75]], "<f4").tobytes()
BROAD = "share=100%,per-minute=1000,bytes-per-day=1000000000"


def reply(head: dict[str, Any], binary: bytes = b"", length: int | None = None) -> Reply:
    text = json.dumps(head).encode()
    size = str(len(text) if length is None else length)
    headers = (("Inference-Header-Content-Length", size),)
    return Reply(200, text + binary, "application/octet-stream", headers)


def output(size_bytes: int = 8, **changes: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": size_bytes}
    given = {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": parameters}
    return given | changes


async def answers(request: Forwarded) -> Reply:
    del request
    head = {"model_name": "other", "model_version": "9", "outputs": [output()]}
    return reply(head | {"parameters": {"took": 7, "none": None}}, SCORES)


class Device(NamedTuple):
    """A device whose one model waits for the test, its fallback, and a client."""

    inside: Inside
    server: FallbackServer
    stub: Any

    @property
    def stats(self) -> Stats:
        return self.inside.host.routes["digits"].stats

    def metric(self, name: str) -> float:
        assert self.inside.hybrid is not None
        found = self.inside.hybrid.samples()
        (value,) = [one.value for one in found if one.name == name]
        return float(value)

    def infer(self, *args: Any, **more: Any) -> tuple[Any, dict[str, str]]:
        """The answer, and the metadata that says who answered."""
        answer, call = self.stub.ModelInfer.with_call(request(*args), timeout=GUARD_S, **more)
        return answer, said_by(call.initial_metadata())

    def refused(self, *args: Any, **more: Any) -> tuple[grpc.RpcError, dict[str, str]]:
        with pytest.raises(grpc.RpcError) as error:
            self.stub.ModelInfer(request(*args), **{"timeout": GUARD_S, **more})
        return error.value, said_by(error.value.trailing_metadata())


def said_by(metadata: Any) -> dict[str, str]:
    names = ("edgefleet-answered-by", "edgefleet-fallback")
    return {name: value for name, value in metadata if name in names}


def said(by: str, event: str = "", outcome: str = "") -> dict[str, str]:
    note = {"edgefleet-fallback": f"{event}; {outcome}"} if event else {}
    return {"edgefleet-answered-by": by, **note}


def request(model: str = "digits", version: str = "", **more: Any) -> Any:
    made = service_pb2.ModelInferRequest(model_name=model, model_version=version, **more)
    made.inputs.add(name="pixels", datatype="FP32", shape=[1, 64])
    made.raw_input_contents.append(bytes(256))
    return made


@contextlib.contextmanager
def device(
    model: TinyModel, behave: Behaviour, when: str, budget: str = BROAD, **more: str
) -> Iterator[Device]:
    servers: list[FallbackServer] = []
    stack = contextlib.AsyncExitStack()

    async def settings() -> FallbackSettings:
        running = await stack.enter_async_context(fallback(behave))
        servers.append(running)
        found = read_fallback(running.url, when=when, budget=budget, **more)
        assert found is not None
        return found

    with gated_server(model, fallback=settings) as inside:
        (server,) = servers
        with grpc.insecure_channel(inside.address) as channel:
            yield Device(inside, server, service_pb2_grpc.GRPCInferenceServiceStub(channel))
        inside.do(stack.aclose())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return classifier(tmp_path_factory.mktemp("model") / "model.onnx")


def test_a_missing_model_is_asked_of_the_fallback_over_rest(model: TinyModel) -> None:
    with device(model, answers, "missing") as own:
        sent = request("other", "3/x", id="a1")
        sent.parameters["priority"].int64_param = 2
        sent.parameters["triton_enable_empty_final_response"].bool_param = True
        sent.outputs.add(name="y").parameters["classification"].int64_param = 1
        metadata = [("authorization", "Bearer of-the-client"), ("traceparent", "00-1")]
        answer, call = own.stub.ModelInfer.with_call(sent, metadata=metadata)
        assert said_by(call.initial_metadata()) == said("fallback", "missing", "answered")
        assert (answer.model_name, answer.model_version, answer.id) == ("other", "9", "a1")
        assert [(one.name, one.datatype, list(one.shape)) for one in answer.outputs] == [
            ("y", "FP32", [1, 2])
        ]
        assert list(answer.raw_output_contents) == [SCORES]
        assert answer.parameters["answered_by"].string_param == "fallback"
        assert answer.parameters["fallback_reason"].string_param == "missing"
        assert answer.parameters["took"].int64_param == 7
        assert answer.parameters["triton_final_response"].bool_param is True
        (got,) = own.server.requests
        assert got.target == "/v2/models/other/versions/3%2Fx/infer"
        size = int(got.headers["inference-header-content-length"])
        left = json.loads(got.body[:size])
        assert left.pop("parameters").pop("timeout", 0) == 0
        assert left == {
            "id": "a1",
            "inputs": [
                {"name": "pixels", "datatype": "FP32", "shape": [1, 64],
                 "parameters": {"binary_data_size": 256}},
            ],
            "outputs": [{"name": "y", "parameters": {"classification": 1, "binary_data": True}}],
        }  # fmt: skip
        assert got.body[size:] == bytes(256)
        assert (got.headers["edgefleet-hop"], got.headers["traceparent"]) == ("1", "00-1")
        assert "authorization" not in got.headers


def test_a_local_answer_says_so_and_sends_nothing(model: TinyModel) -> None:
    with device(model, answers, "overload,missing,error") as own:
        own.inside.gated.gate.set()
        answer, by = own.infer()
        assert (answer.model_version, by) == ("old", said("local"))
        assert not answer.parameters
        error, by = own.refused("digits", "8")
        assert (error.code(), by) == (Code.NOT_FOUND, {})
        assert own.server.connections == 0
        assert own.metric("edgefleet_fallback_in_flight") == 0


def test_an_error_of_the_release_counts_also_if_the_fallback_answers(model: TinyModel) -> None:
    with device(model, answers, "error") as own:
        own.inside.gated.fail = True
        own.inside.gated.gate.set()
        answer, by = own.infer()
        assert (answer.model_version, by) == ("9", said("fallback", "error", "answered"))
        live = own.stats.live()
        assert (live.requests, live.errors) == (1, 1)
        assert sum(live.sketches.latency.values()) == 0, "no latency of the fallback"


def test_a_full_queue_is_an_event_and_a_refusal_of_the_release(model: TinyModel) -> None:
    with device(model, answers, "overload") as own:
        taken = [own.stub.ModelInfer.future(request()) for _ in range(QUEUED + 1)]
        until(lambda: own.stats.in_flight > QUEUED, "It did not come so far.")
        _, by = own.infer()
        assert by == said("fallback", "overload", "answered")
        assert own.stats.refused == {"queue_full": 1}
        own.inside.gated.gate.set()
        assert {one.result(GUARD_S).model_version for one in taken} == {"old"}


@pytest.mark.parametrize(("limit", "version"), [(0.2, "9"), (0.05, "old")])
def test_an_unsure_answer_is_replaced_and_counts_as_it_was(
    model: TinyModel, limit: float, version: str
) -> None:
    with device(model, answers, f"confidence={limit}") as own:
        own.inside.gated.gate.set()
        assert own.infer()[0].model_version == version  # ten classes of 0.1
        live = own.stats.live()
        assert (live.requests, live.confidence_count) == (1, 1)
        assert live.confidence_sum == pytest.approx(0.1)


def test_a_late_answer_is_dropped_but_the_release_is_judged_by_it(model: TinyModel) -> None:
    with device(model, answers, "hedge=5ms") as own:
        _, by = own.infer()
        assert by == said("fallback", "hedge", "answered")
        assert own.stats.in_flight == 1, "the model still runs it"
        own.inside.gated.gate.set()
        until(lambda: own.stats.requests == 1, "It did not come so far.")
        assert own.stats.live().latency_us_p50 >= 5_000


def test_a_client_that_leaves_before_the_hedge_leaves_the_queue(model: TinyModel) -> None:
    with device(model, answers, "hedge=30s") as own:
        first = own.stub.ModelInfer.future(request())
        until(lambda: own.stats.in_flight == 1, "It did not come so far.")
        second = own.stub.ModelInfer.future(request())
        until(lambda: own.stats.in_flight == 2, "It did not come so far.")
        second.cancel()
        until(lambda: own.stats.in_flight == 1, "It did not come so far.")
        own.inside.gated.gate.set()
        assert first.result(GUARD_S).model_version == "old"
        until(lambda: own.stats.in_flight == 0, "It did not come so far.")
        assert (own.inside.gated.runs, own.server.connections) == (1, 0)


def test_the_deadline_of_the_client_bounds_the_fallback_and_is_no_fault_of_it(
    model: TinyModel,
) -> None:
    with device(model, hangs, "missing", timeout_s="60") as own:
        error, _ = own.refused("other", timeout=0.3)
        assert error.code() in (Code.DEADLINE_EXCEEDED, Code.NOT_FOUND)
        until(own.server.lost.is_set, "It did not come so far.")
        (got,) = own.server.requests
        size = int(got.headers["inference-header-content-length"])
        assert 0 < json.loads(got.body[:size])["parameters"]["timeout"] <= 300_000
        until(lambda: own.metric("edgefleet_fallback_in_flight") == 0, "It did not come so far.")
        assert own.metric("edgefleet_fallback_up") == 1


def test_both_protocols_share_one_budget(model: TinyModel) -> None:
    with device(model, answers, "missing", "share=100%,per-minute=2") as own:
        assert own.infer("other")[1] == said("fallback", "missing", "answered")
        assert own.infer("other")[1] == said("fallback", "missing", "answered")
        error, by = own.refused("other")
        assert (error.code(), by) == (Code.NOT_FOUND, said("local", "missing", "budget_minute"))
        assert "does not serve model other" in error.details()
        rest = Rest(own.inside.host, own.inside.hybrid)

        async def ask() -> Reply:
            answer = rest(Request("POST", "/v2/models/other/infer", "", {}, b"{}"))
            return answer if isinstance(answer, Reply) else await answer

        assert b"edgefleet-fallback: missing; budget_minute\r\n" in own.inside.do(ask()).lines
        assert len(own.server.requests) == 2


async def breaks(_: Forwarded) -> None:
    return


def answers_with(head: dict[str, Any], *rest: Any) -> Behaviour:
    async def behave(_: Forwarded) -> Reply:
        return reply(head, *rest)

    return behave


HUGE = output(0, shape=[0, 1 << 39, 1 << 39])
WRONG = {
    "no answer": {"x": 1},
    "values as JSON": {"outputs": [{**output(), "parameters": None, "data": [0.25, 0.75]}]},
    "too few bytes": {"outputs": [output(4)]},
    "too many bytes": {"outputs": [output(9)]},
    "no size": {"outputs": [output(-8)]},
    "an unknown datatype": {"outputs": [output(datatype="FP4")]},
    "a negative shape": {"outputs": [output(shape=[-1, -2])]},
    "a huge shape": {"outputs": [HUGE, output()]},
    "bytes of no output": {"outputs": []},
    "a huge parameter": {"outputs": [output()], "parameters": {"x": 1 << 70}},
}


@pytest.mark.parametrize("head", WRONG.values(), ids=WRONG)
def test_an_answer_that_cannot_be_read_is_none(model: TinyModel, head: dict[str, Any]) -> None:
    with device(model, answers_with(head, SCORES), "missing") as own:
        _, by = own.refused("other")
        assert by == said("local", "missing", "malformed")


def test_a_wrong_length_of_the_json_and_a_fallback_that_breaks_open_the_breaker(
    model: TinyModel,
) -> None:
    good = {"model_name": "m", "outputs": [output()]}
    with device(model, answers_with(good, SCORES, 10**9), "missing") as own:
        assert own.refused("other")[1] == said("local", "missing", "malformed")
        own.server.behave = breaks
        for _ in range(FALLBACK_FAILURES - 1):
            assert own.refused("other")[1] == said("local", "missing", "unreachable")
        assert own.refused("other")[1] == said("local", "missing", "breaker_open")
        assert own.metric("edgefleet_fallback_up") == 0


def test_a_call_that_another_device_has_forwarded_is_answered_here(model: TinyModel) -> None:
    with device(model, answers, "missing") as own:
        error, by = own.refused("other", metadata=[("edgefleet-hop", "1")])
        assert (error.code(), by) == (Code.NOT_FOUND, {})
        assert own.refused("..")[1] == {}
        assert own.server.connections == 0


def invalid(change: Callable[[Any], object]) -> Any:
    made = request("other")
    change(made)
    return made


def as_typed(made: Any, shape: list[int]) -> None:
    del made.raw_input_contents[:]
    made.inputs[0].shape[:] = shape
    made.inputs[0].contents.fp32_contents.extend([0.5] * 64)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.raw_input_contents.append(b"more"),
        lambda made: made.inputs[0].contents.fp32_contents.append(1.0),
        lambda made: as_typed(made, [-1, -64]),
        lambda made: as_typed(made, [1, 65]),
        lambda made: (
            made.inputs[0]
            .parameters["shared_memory_region"]
            .MergeFrom(service_pb2.InferParameter(string_param="r"))
        ),
    ],
)
def test_an_invalid_request_for_a_missing_model_is_not_sent(
    model: TinyModel, change: Callable[[Any], object]
) -> None:
    with device(model, answers, "missing") as own:
        with pytest.raises(grpc.RpcError) as error:
            own.stub.ModelInfer(invalid(change), timeout=GUARD_S)
        assert error.value.code() == Code.INVALID_ARGUMENT
        assert own.server.connections == 0


def test_typed_contents_are_sent_as_binary_and_answered_with_typed_contents(
    model: TinyModel,
) -> None:
    with device(model, answers, "missing") as own:
        answer = own.stub.ModelInfer(invalid(lambda made: as_typed(made, [1, 64])))
        assert list(answer.outputs[0].contents.fp32_contents) == [0.25, 0.75]
        assert not answer.raw_output_contents
        (got,) = own.server.requests
        size = int(got.headers["inference-header-content-length"])
        assert got.body[size:] == np.full(64, 0.5, "<f4").tobytes()


def test_each_answer_of_a_stream_names_who_gave_it(model: TinyModel) -> None:
    with device(model, answers, "missing", "share=100%,per-minute=1") as own:
        own.inside.gated.gate.set()
        got: queue.Queue[tuple[Any, Any]] = queue.Queue()
        tensor = triton.InferInput("pixels", [1, 64], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 64), np.float32))
        with triton.InferenceServerClient(own.inside.address) as client:
            client.start_stream(lambda result, error: got.put((result, error)))
            for name in ("other", "digits", "other"):
                client.async_stream_infer(name, [tensor])
            first, second, third = (got.get(timeout=GUARD_S) for _ in range(3))
            client.stop_stream()
        assert first[0].get_response().parameters["answered_by"].string_param == "fallback"
        assert first[0].as_numpy("y").tolist() == [[0.25, 0.75]]
        assert second[0].get_response().model_version == "old"
        assert "answered_by" not in second[0].get_response().parameters
        assert "does not serve model other" in str(third[1])


@pytest.mark.long
def test_each_datatype_comes_back_from_a_real_fallback(tmp_path: Path, model: TinyModel) -> None:
    with serving(tmp_path) as real:
        real.apply(*(typed_model(tmp_path, datatype) for datatype in VALUES))

        async def settings() -> FallbackSettings:
            found = read_fallback(real.url, when="missing", budget=BROAD)
            assert found is not None
            return found

        with (
            gated_server(model, fallback=settings) as inside,
            triton.InferenceServerClient(inside.address) as client,
        ):
            for datatype, values in VALUES.items():
                tensor = triton.InferInput("x", list(values.shape), datatype)
                tensor.set_data_from_numpy(values)
                found = client.infer(datatype.lower(), [tensor])
                assert found.get_response().parameters["answered_by"].string_param == "fallback"
                back = found.as_numpy("y")
                if datatype == "BYTES":
                    assert [one.decode() for one in back.ravel()] == list(values.ravel())
                else:
                    assert (back.dtype, back.tolist()) == (values.dtype, values.tolist())
