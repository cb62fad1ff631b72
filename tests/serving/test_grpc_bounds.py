"""The bounds of the serving process over gRPC, with the client of grpcio."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from edgefleet.serving.bounds import Bounds
from support.grpc_inside import Inside, gated_server
from support.http2_client import FrameClient
from support.tiny_models import classifier
from support.waiting import until

Code = grpc.StatusCode
GUARD_S = 30.0
HEALTH = "/grpc.health.v1.Health/Check"
BOUNDS = Bounds(
    body_mib=1,
    bodies_mib=2,
    connections=3,
    peer_connections=2,
    reserved_connections=2,
    queue=1,
    client_rate=1,
    client_burst=5,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Inside]:
    with gated_server(classifier(tmp_path / "m.onnx"), BOUNDS) as inside:
        yield inside


@pytest.fixture
def channel(server: Inside) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", 64 << 20)]
    with grpc.insecure_channel(server.address, options) as connected:
        yield connected


def request(values: int = 64) -> service_pb2.ModelInferRequest:
    made = service_pb2.ModelInferRequest(model_name="digits")
    made.inputs.add(name="pixels", datatype="FP32", shape=[values // 64, 64])
    made.raw_input_contents.append(bytes(4 * values))
    return made


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, dict[str, str]]:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), dict(error.value.trailing_metadata())


def check_health(channel: grpc.Channel) -> bytes:
    call = channel.unary_unary(HEALTH, lambda data: data, lambda data: data)
    answer: bytes = call(b"", timeout=GUARD_S)
    return answer


def test_a_message_above_the_setting_is_refused(server: Inside, channel: grpc.Channel) -> None:
    server.gated.gate.set()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    code, _ = refused(lambda: stub.ModelInfer(request(64 * 5_000)))
    assert code is Code.RESOURCE_EXHAUSTED
    assert stub.ModelInfer(request(64)).model_version == "old"


def test_the_queue_is_as_long_as_the_setting(server: Inside, channel: grpc.Channel) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    waiting = [stub.ModelInfer.future(request()) for _ in range(2)]
    stats = server.host.routes["digits"].stats
    until(lambda: stats.in_flight == 2, "Two requests are not there.")
    code, told = refused(lambda: stub.ModelInfer(request()))
    assert code is Code.UNAVAILABLE
    assert (told["edgefleet-code"], told["edgefleet-reason"]) == ("overloaded", "queue_full")
    assert int(told["grpc-retry-pushback-ms"]) >= 1_000
    server.gated.gate.set()
    assert {one.result(GUARD_S).model_version for one in waiting} == {"old"}


def test_a_deadline_that_cannot_be_met_is_refused_at_once(
    server: Inside, channel: grpc.Channel
) -> None:
    """The client still waits, so that it is no DEADLINE_EXCEEDED: another device may answer."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    first = stub.ModelInfer.future(request())
    release: Any = server.host.routes["digits"]
    until(lambda: release.stats.in_flight == 1, "The request is not there.")
    release.backlog.learn((256).bit_length(), 60e9)
    code, told = refused(lambda: stub.ModelInfer(request(), timeout=20.0))
    assert (code, told["edgefleet-reason"]) == (Code.UNAVAILABLE, "deadline")
    server.gated.gate.set()
    assert first.result(GUARD_S).model_version == "old"
    assert release.stats.refused == {"timeout": 1}


def test_over_its_quota_a_client_is_told_when_to_retry(
    server: Inside, channel: grpc.Channel
) -> None:
    server.gated.gate.set()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    for _ in range(5):
        stub.ModelInfer(request())
    code, told = refused(lambda: [stub.ModelInfer(request()) for _ in range(20)])
    assert code is Code.RESOURCE_EXHAUSTED
    assert (told["edgefleet-code"], told["edgefleet-reason"]) == ("over_quota", "client_quota")
    assert 1 <= int(told["grpc-retry-pushback-ms"]) <= 1_000
    assert check_health(channel) == b"\x08\x01", "health has no quota"


def test_each_message_of_a_stream_takes_of_the_quota(server: Inside, channel: grpc.Channel) -> None:
    server.gated.gate.set()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    answers = list(stub.ModelStreamInfer(iter([request() for _ in range(30)])))
    failed = [one.error_message for one in answers if one.error_message]
    assert len(answers) == 30
    assert 5 <= 30 - len(failed) < 30
    assert "quota of 127.0.0.1 is 1 requests a second" in failed[0]


def test_health_is_answered_although_the_address_has_its_share(server: Inside) -> None:
    server.gated.gate.set()
    port = int(server.address.rpartition(":")[2])
    with ExitStack() as stack:
        for _ in range(2):
            held = FrameClient(port)
            stack.callback(held.socket.close)
            held.call(1, request().SerializeToString())
            assert held.trailers()["grpc-status"] == "0"
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = stack.enter_context(grpc.insecure_channel(server.address, options))
        assert check_health(channel) == b"\x08\x01"
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        code, told = refused(lambda: stub.ModelInfer(request()))
        assert (code, told["edgefleet-reason"]) == (Code.UNAVAILABLE, "peer_connections")
        assert server.listener.places.refused["peer_connections"] >= 1
