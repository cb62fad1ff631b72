"""Deadlines, cancellation, health and limits of gRPC calls, with the client of grpcio."""

import gzip
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from edgefleet.http2 import frames
from edgefleet.serving.grpc.call import WAITING_BYTES
from edgefleet.serving.limits import GRPC, INFERENCE, QUEUED
from support.grpc_inside import Inside, gated_server
from support.http2_client import FrameClient
from support.http2_wire import frame
from support.tiny_models import classifier

GUARD_S = 30.0
SERVICE = "/inference.GRPCInferenceService/"
Code = grpc.StatusCode


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Inside]:
    with gated_server(classifier(tmp_path / "m.onnx")) as inside:
        yield inside


@pytest.fixture
def channel(server: Inside) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", 64 << 20)]
    with grpc.insecure_channel(server.address, options) as connected:
        yield connected


def request() -> service_pb2.ModelInferRequest:
    made = service_pb2.ModelInferRequest(model_name="digits")
    made.inputs.add(name="pixels", datatype="FP32", shape=[1, 64])
    made.raw_input_contents.append(bytes(256))
    return made


def raw_call(channel: grpc.Channel, method: str) -> Any:
    """A call whose messages are bytes."""
    return channel.unary_unary(method, lambda data: data, lambda data: data)


def until(server: Inside, holds: Callable[[], bool]) -> None:
    """Wait on the server's loop until ``holds``."""
    done = threading.Event()

    def look() -> None:
        if holds():
            done.set()
        else:
            server.loop.call_later(0.005, look)

    server.loop.call_soon_threadsafe(look)
    assert done.wait(GUARD_S)


def refused(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def test_a_client_that_no_longer_waits_leaves_no_stream(
    server: Inside, channel: grpc.Channel
) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    error = refused(lambda: stub.ModelInfer(request(), timeout=0.05))
    assert error.code() == Code.DEADLINE_EXCEEDED
    (connection,) = server.listener.connections
    until(server, lambda: not connection.core.streams)
    server.gated.gate.set()
    assert stub.ModelInfer(request(), timeout=GUARD_S).model_version == "old"


def test_a_call_is_ended_at_its_deadline(server: Inside) -> None:
    """A client of frames, as grpcio ends its calls itself."""
    wire = FrameClient(int(server.address.rpartition(":")[2]))
    wire.call(1, request().SerializeToString(), ("grpc-timeout", "500m"))
    assert wire.trailers()["grpc-status"] == str(Code.DEADLINE_EXCEEDED.value[0])
    assert server.host.routes["digits"].stats.refused.total() == 1
    server.gated.gate.set()
    wire.call(3, request().SerializeToString(), ("grpc-timeout", "30S"))
    assert wire.trailers()["grpc-status"] == "0"


@pytest.mark.parametrize("given", ["x", "1", "123456789S", "-1S", "1s", "S"])
def test_a_malformed_deadline_is_refused(server: Inside, given: str) -> None:
    wire = FrameClient(int(server.address.rpartition(":")[2]))
    wire.call(1, b"", ("grpc-timeout", given))
    assert wire.trailers()["grpc-status"] == str(Code.INTERNAL.value[0])


def test_what_is_no_call_of_grpc_is_told_so(server: Inside) -> None:
    wire = FrameClient(int(server.address.rpartition(":")[2]))
    wire.request(1)
    assert wire.encoder.fields(wire.until(1))[":status"] == "415"


def test_the_timeout_of_a_request_is_a_deadline(server: Inside, channel: grpc.Channel) -> None:
    """The parameter of the request is no deadline of the client."""
    call = raw_call(channel, f"{SERVICE}ModelInfer")
    made = request()
    made.parameters["timeout"].int64_param = 20_000
    error = refused(lambda: call(made.SerializeToString()))
    assert error.code() == Code.DEADLINE_EXCEEDED
    assert "20000 us" in error.details()
    assert ("edgefleet-code", "timeout") in error.trailing_metadata()


def test_a_call_that_is_cancelled_does_not_count_as_an_answer(
    server: Inside, channel: grpc.Channel
) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    coming = stub.ModelInfer.future(request())
    stats = server.host.routes["digits"].stats
    until(server, lambda: stats.in_flight == 1)
    coming.cancel()
    (connection,) = server.listener.connections
    until(server, lambda: not connection.core.streams)
    server.gated.gate.set()
    until(server, lambda: stats.in_flight == 0)
    assert stats.requests == 0
    assert stub.ModelInfer(request()).model_version == "old"


def test_a_failure_of_the_model_is_internal(server: Inside, channel: grpc.Channel) -> None:
    server.gated.fail = True
    server.gated.gate.set()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    error = refused(lambda: stub.ModelInfer(request()))
    assert (error.code(), error.details()) == (Code.INTERNAL, "It failed.")


def test_a_full_queue_is_unavailable_and_says_when_to_ask_again(
    server: Inside, channel: grpc.Channel
) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    waiting = [stub.ModelInfer.future(request()) for _ in range(QUEUED + 1)]
    stats = server.host.routes["digits"].stats
    until(server, lambda: stats.in_flight == QUEUED + 1)
    error = refused(lambda: stub.ModelInfer(request()))
    assert error.code() == Code.UNAVAILABLE
    told = dict(error.trailing_metadata())
    assert (told["edgefleet-code"], told["grpc-retry-pushback-ms"]) == ("overloaded", "1000")
    server.gated.gate.set()
    assert {one.result(GUARD_S).model_version for one in waiting} == {"old"}


def test_health_follows_the_models(server: Inside, channel: grpc.Channel) -> None:
    def check(name: str) -> bytes:
        sent = b"\x0a" + bytes((len(name),)) + name.encode()
        answer: bytes = raw_call(channel, "/grpc.health.v1.Health/Check")(sent)
        return answer

    serving, not_serving = b"\x08\x01", b"\x08\x02"
    for name in ("", "inference.GRPCInferenceService", "digits"):
        assert check(name) == serving
    assert refused(lambda: check("other")).code() == Code.NOT_FOUND
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch", lambda data: data, lambda data: data
    )(b"")
    assert next(watch) == serving
    routes, server.host.routes = server.host.routes, {}
    assert check("") == not_serving
    assert next(watch) == not_serving
    server.host.routes = routes
    assert next(watch) == serving
    watch.cancel()


@pytest.mark.parametrize(
    ("method", "sent", "code"),
    [
        ("/inference.GRPCInferenceService/Other", b"", Code.UNIMPLEMENTED),
        ("/other.Service/ModelInfer", b"", Code.UNIMPLEMENTED),
        (f"{SERVICE}ModelInfer", b"\xff\xff", Code.INVALID_ARGUMENT),
        (f"{SERVICE}ModelInfer", b"\x0a\x02\xff\xfe", Code.INVALID_ARGUMENT),
        (f"{SERVICE}ModelInfer", b"\x0a\x7fshort", Code.INVALID_ARGUMENT),
        (f"{SERVICE}ModelMetadata", b"\x0a\x05other", Code.NOT_FOUND),
        (f"{SERVICE}ModelMetadata", b"\x08\x01", Code.INVALID_ARGUMENT),
        (f"{SERVICE}ModelInfer", bytes(INFERENCE.body_bytes + 1), Code.RESOURCE_EXHAUSTED),
    ],
)
def test_a_wrong_call_has_a_status(
    channel: grpc.Channel, method: str, sent: bytes, code: grpc.StatusCode
) -> None:
    assert refused(lambda: raw_call(channel, method)(sent)).code() == code


def test_a_compressed_message_may_not_grow_beyond_the_limit(
    server: Inside, channel: grpc.Channel
) -> None:
    bomb = bytes(INFERENCE.body_bytes + 1)
    assert len(gzip.compress(bomb)) < 1 << 15
    error = refused(
        lambda: raw_call(channel, f"{SERVICE}ModelInfer")(bomb, compression=grpc.Compression.Gzip)
    )
    assert error.code() == Code.RESOURCE_EXHAUSTED


def test_another_compression_is_refused_with_those_that_there_are(server: Inside) -> None:
    wire = FrameClient(int(server.address.rpartition(":")[2]))
    wire.call(1, request().SerializeToString(), ("grpc-encoding", "snappy"))
    told = wire.trailers()
    assert told["grpc-status"] == str(Code.UNIMPLEMENTED.value[0])
    assert told["grpc-accept-encoding"] == "identity,deflate,gzip"
    assert "snappy" in told["grpc-message"]


def test_the_memory_of_all_messages_is_given_back(server: Inside, channel: grpc.Channel) -> None:
    server.gated.gate.set()
    service = server.listener.handler
    before = service.left_bytes
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    stub.ModelInfer(request())
    refused(lambda: raw_call(channel, f"{SERVICE}ModelInfer")(b"\xff" * 1_000))
    refused(lambda: raw_call(channel, f"{SERVICE}ModelInfer")(bytes(INFERENCE.body_bytes + 1)))
    assert len(list(stub.ModelStreamInfer(iter([request()] * 40)))) == 40
    until(server, lambda: service.left_bytes == before)


def test_a_stream_answers_in_order_and_ends(server: Inside, channel: grpc.Channel) -> None:
    server.gated.gate.set()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def requests() -> Iterator[service_pb2.ModelInferRequest]:
        for number in range(50):
            made = request()
            made.id = str(number)
            yield made

    ids = [one.infer_response.id for one in stub.ModelStreamInfer(requests())]
    assert ids == [str(number) for number in range(50)]


def test_a_stream_that_breaks_a_bound_after_an_answer_gets_trailers_alone(server: Inside) -> None:
    """The head of the reply was sent by then, and is not sent again."""
    server.gated.gate.set()
    wire = FrameClient(int(server.address.rpartition(":")[2]))
    wire.call(1, request().SerializeToString(), method="ModelStreamInfer", ends=False)
    wire.until(frames.DATA)
    wire.send(frame(frames.DATA, 0, 1, b"\0" + b"\xff" * 4))
    told = wire.trailers()
    assert told["grpc-status"] == str(Code.RESOURCE_EXHAUSTED.value[0])
    assert ":status" not in told


def test_a_client_that_sends_ahead_waits(server: Inside, channel: grpc.Channel) -> None:
    """The queue of a stream is bounded: the window stays closed while its messages wait."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    large = request()
    large.raw_input_contents[0] = bytes(100_000)
    service = server.listener.handler
    before = service.left_bytes
    answers = stub.ModelStreamInfer(iter([request(), *[large] * 200]))

    def window() -> int:
        return min(
            (
                stream.receive_window
                for connection in server.listener.connections
                for stream in connection.core.streams.values()
            ),
            default=1 << 30,
        )

    until(server, lambda: window() < 300_000)
    assert before - service.left_bytes < WAITING_BYTES + GRPC.stream_window_bytes + 300_000
    server.gated.gate.set()
    errors = [one.error_message for one in answers]
    assert (len(errors), errors[0], "not 100000" in errors[1]) == (201, "", True)
