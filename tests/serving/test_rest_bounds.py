"""The bounds of the serving process over REST: quotas, reasons and their metrics."""

import gzip
from pathlib import Path

import pytest

from edgefleet.base.errors import DeviceError, Overloaded
from edgefleet.base.later import Later
from edgefleet.base.network import HttpLink
from edgefleet.base.places import Places
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.wire import decode
from edgefleet.serving.client_quota import ClientQuota, OverQuota
from edgefleet.serving.inference import Inferences
from edgefleet.serving.limits import COMPRESSED_REPLY_BYTES
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.rest import Rest, is_urgent
from edgefleet.serving.routes import render_error
from support.serving_process import serving
from support.tiny_models import classifier


def get(path: str, peer: str = "10.0.0.1", method: str = "GET") -> Request:
    return Request(method, path, "", {}, b"", peer=peer)


def status(rest: Rest, request: Request) -> int:
    try:
        reply = rest(request)
    except (DeviceError, OverQuota) as error:
        reply = render_error(error)
    assert isinstance(reply, Reply)
    return reply.status


def test_a_client_over_its_quota_gets_429_with_a_time_and_a_reason() -> None:
    host = ModelHost()
    rest = Rest(host, quota=ClientQuota(1, 2, clock=lambda: 0.0))
    assert [status(rest, get("/v2")) for _ in range(3)] == [200, 200, 429]
    with pytest.raises(OverQuota) as refused:
        rest(get("/v2"))
    reply = render_error(refused.value)
    assert ("Retry-After", "1") in reply.headers
    body = decode(reply.body, dict)
    assert (body["code"], body["reason"]) == ("over_quota", "client_quota")
    assert status(rest, get("/v2", "10.0.0.2")) == 200


class Pending(Inferences):
    """Inferences whose reply comes later."""

    def __init__(self, host: ModelHost) -> None:
        super().__init__(host)
        self.reply: Later[Reply] = Later()

    def infer(self, *_: object) -> Later[Reply]:  # type: ignore[override]
        return self.reply


@pytest.mark.parametrize("size", [10, 5_000])
def test_a_pending_reply_is_compressed_without_a_task(size: int) -> None:
    host = ModelHost()
    pending = Pending(host)
    asked = Request("POST", "/v2/models/m/infer", "", {b"accept-encoding": b"gzip"}, b"{}")
    coming = Rest(host, pending)(asked)
    assert isinstance(coming, Later), "no coroutine, which would be run as a task"
    got: list[Reply | Exception] = []
    coming.then(got.append)
    pending.reply.settle(Reply(200, b"1" * size))
    (reply,) = got
    assert isinstance(reply, Reply)
    assert (("Content-Encoding", "gzip") in reply.headers) == (size > COMPRESSED_REPLY_BYTES)
    plain = gzip.decompress(reply.body) if size > COMPRESSED_REPLY_BYTES else reply.body
    assert plain == b"1" * size


def test_the_error_of_a_pending_reply_is_rendered() -> None:
    host = ModelHost()
    pending = Pending(host)
    headers = {b"accept-encoding": b"gzip", b"origin": b"http://page"}
    rest = Rest(host, pending, origins=["*"])
    coming = rest(Request("POST", "/v2/models/m/infer", "", headers, b"{}"))
    assert isinstance(coming, Later)
    got: list[Reply | Exception] = []
    coming.then(got.append)
    pending.reply.settle(DeviceError("not_ready", "No model."))
    (reply,) = got
    assert isinstance(reply, Reply)
    assert (reply.status, ("Access-Control-Allow-Origin", "*") in reply.headers) == (503, True)


@pytest.mark.parametrize("path", ["/health", "/health/live", "/v2/health/live", "/metrics"])
def test_health_and_metrics_have_no_quota(path: str) -> None:
    rest = Rest(ModelHost(), quota=ClientQuota(1, 1, clock=lambda: 0.0))
    assert status(rest, get("/v2")) == 200
    assert {status(rest, get(path)) for _ in range(3)} <= {200, 503}
    assert is_urgent(get(path, method="HEAD"))
    assert not is_urgent(get(path, method="POST"))
    assert not is_urgent(get("/v2/models/digits/infer"))


def test_the_reason_is_beside_the_code() -> None:
    reply = render_error(Overloaded("queue_full", "Full.", retry_after_s=2.1))
    assert (reply.status, ("Retry-After", "3") in reply.headers) == (503, True)
    assert decode(reply.body, dict)["reason"] == "queue_full"
    assert "reason" not in decode(render_error(DeviceError("not_ready", "No.")).body, dict)


def test_refusals_are_counted_by_their_reason() -> None:
    host = ModelHost()
    quota, places = ClientQuota(1, clock=lambda: 0.0), Places(1)
    host.refused = [quota.refused, places.refused]
    rest = Rest(host, quota=quota)
    assert [status(rest, get("/v2")) for _ in range(3)] == [200, 429, 429]
    places.acquire("a")
    places.acquire("a")
    reply = rest(get("/metrics"))
    assert isinstance(reply, Reply)
    lines = [line for line in reply.body.decode().splitlines() if "serving_refused_total{" in line]
    assert lines == [
        'edgefleet_serving_refused_total{reason="client_quota"} 2',
        'edgefleet_serving_refused_total{reason="connections"} 1',
    ]


@pytest.mark.long
def test_the_process_has_the_bounds_of_its_options(tmp_path: Path) -> None:
    options = ("--client-rate", "1", "--client-burst", "3", "--body-mib", "1")
    with serving(tmp_path, *options) as process:
        process.activate(classifier(tmp_path / "m.onnx").activate())
        link = HttpLink(process.url)
        large = link.request("POST", "/v2/models/digits/infer", body=bytes((1 << 20) + 1))
        assert large.status == 413
        found = [link.request("GET", "/v2").status for _ in range(6)]
        assert found[:3] == [200, 200, 200]
        assert 429 in found
        assert link.request("GET", "/v2/health/ready").status == 200
        link.close()
