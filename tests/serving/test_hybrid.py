"""Requests that the fallback answers, and what the counters of the local release say of them."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.fallback import read_fallback
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.hybrid import breaker
from edgefleet.serving.hybrid.door import Hybrid
from edgefleet.serving.inference import Inferences
from edgefleet.serving.limits import (
    FALLBACK_ANSWER_BYTES,
    FALLBACK_BURST,
    FALLBACK_FAILURES,
    FALLBACK_FORWARDS,
    QUEUED,
)
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.rest import Rest
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.stats import Stats
from support.certificates import Certificates, certificates
from support.fallback_server import Behaviour, FallbackServer, Forwarded, answers, fallback, hangs
from support.gated_model import Gated
from support.tiny_models import TinyModel, classifier

TENSOR = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
BROAD = "share=100%,per-minute=1000,bytes-per-day=1000000000"


def infer(
    model: str = "digits", body: bytes = BODY, headers: dict[bytes, bytes] | None = None
) -> Request:
    return Request("POST", f"/v2/models/{model}/infer", "", headers or {}, body)


def timed(timeout_us: int) -> bytes:
    return json.dumps({"inputs": [TENSOR], "parameters": {"timeout": timeout_us}}).encode()


class Device:
    """A device whose one model waits for the test, and its fallback."""

    def __init__(self, model: TinyModel, when: str, budget: str, **more: str) -> None:
        settings = read_fallback(more.pop("url"), when=when, budget=budget, **more)
        assert settings is not None
        self.host = ModelHost()
        self.gated = Gated()
        self.release = ActiveRelease("digits", model.served("7"), self.gated, marks=RunMarks())
        self.host.routes = {"digits": self.release}
        self.hybrid = Hybrid(Inferences(self.host), settings)
        self.rest = Rest(self.host, self.hybrid, samples=self.hybrid.samples)

    @property
    def stats(self) -> Stats:
        return self.release.stats

    async def ask(self, request: Request) -> Reply:
        answer = self.rest(request)
        return answer if isinstance(answer, Reply) else await answer

    async def fill(self) -> "list[asyncio.Future[Reply]]":
        """Fill the queue of the model with requests, which are not hedged."""
        taken = [asyncio.ensure_future(self.ask(infer())) for _ in range(QUEUED + 1)]
        while self.stats.in_flight <= QUEUED:  # noqa: ASYNC110 - a queue sends no signal
            await asyncio.sleep(0)
        return taken

    async def settle(self) -> None:
        """Wait until the model has run its requests, and until the loop has counted them."""
        while self.stats.in_flight:  # noqa: ASYNC110 - a queue sends no signal
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)

    def metric(self, name: str) -> float:
        text = self.rest(Request("GET", "/metrics", "", {}, b""))
        assert isinstance(text, Reply)
        (line,) = [row for row in text.body.decode().splitlines() if row.startswith(f"{name} ")]
        return float(line.split()[-1])


Story = Callable[[Device, FallbackServer], Awaitable[None]]


@asynccontextmanager
async def device(
    model: TinyModel, behave: Behaviour, when: str, budget: str = BROAD, **more: str
) -> AsyncIterator[tuple[Device, FallbackServer]]:
    async with fallback(behave) as server:
        made = Device(model, when, budget, **{"url": server.url, **more})
        try:
            yield made, server
        finally:
            made.gated.gate.set()
            made.hybrid.close()
            await made.host.close()
            await made.release.retire()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return classifier(tmp_path_factory.mktemp("model") / "model.onnx")


def headers_of(reply: Reply) -> dict[str, str]:
    """The headers that say who answered."""
    lines = [line.partition(": ") for line in reply.lines.decode().split("\r\n") if line]
    return {name: value for name, _, value in lines if name != "edgefleet-generation"}


def said(by: str, event: str = "", outcome: str = "") -> dict[str, str]:
    note = {"edgefleet-fallback": f"{event}; {outcome}"} if event else {}
    return {"edgefleet-answered-by": by, **note}


def test_a_missing_model_is_forwarded_as_it_came(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, answers, "missing") as (own, server):
            body = b'{"inputs": [ ],  "id":"7" }'
            request = Request(
                "POST", "/v2/models/other/versions/3/infer", "a=%20b",
                {
                    b"content-type": b"application/json",
                    b"inference-header-content-length": b"27",
                    b"authorization": b"Bearer of-the-client",
                    b"cookie": b"a=b",
                },
                body,
            )  # fmt: skip
            reply = await own.ask(request)
            assert headers_of(reply) == said("fallback", "missing", "answered")
            assert json.loads(reply.body)["model_version"] == "9"
            assert json.loads(reply.body)["parameters"] == {
                "answered_by": "fallback", "fallback_reason": "missing",
            }  # fmt: skip
            (got,) = server.requests
            assert (got.target, got.body) == ("/v2/models/other/versions/3/infer?a=%20b", body)
            assert got.headers["inference-header-content-length"] == "27"
            assert got.headers["edgefleet-hop"] == "1"
            assert not {"authorization", "cookie"} & set(got.headers)
            assert own.metric('edgefleet_answers_total{by="fallback"}') == 1
            name = 'edgefleet_fallback_events_total{event="missing",outcome="answered"}'
            assert own.metric(name) == 1
            assert own.metric('edgefleet_fallback_bytes_total{direction="sent"}') == len(body)

    uvloop.run(story())


def test_tensorflow_serving_is_forwarded_too(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, answers, "missing") as (own, server):
            reply = await own.ask(Request("POST", "/v1/models/other:predict", "", {}, b"{}"))
            assert reply.body == b'{"predictions": [[0.25, 0.75]]}'
            assert headers_of(reply) == said("fallback", "missing", "answered")
            assert server.requests[0].target == "/v1/models/other:predict"

    uvloop.run(story())


def test_a_local_answer_says_so_and_sends_nothing(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, answers, "overload,missing,error") as (own, server):
            own.gated.gate.set()
            reply = await own.ask(infer())
            assert (reply.status, headers_of(reply)) == (200, said("local"))
            with pytest.raises(OperatorError, match="bad_request"):
                await own.ask(infer(body=b"{"))
            assert server.connections == 0
            assert own.metric('edgefleet_answers_total{by="local"}') == 1

    uvloop.run(story())


def test_a_full_queue_is_an_event_and_a_refusal_of_the_release(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, answers, "overload") as (own, server):
            taken = await own.fill()
            reply = await own.ask(infer())
            assert headers_of(reply) == said("fallback", "overload", "answered")
            assert own.stats.refused == {"queue_full": 1}
            assert len(server.requests) == 1
            own.gated.gate.set()
            assert {
                headers_of(one)["edgefleet-answered-by"] for one in await asyncio.gather(*taken)
            } == {"local"}

    uvloop.run(story())


@pytest.mark.parametrize("when", ["error", "overload,missing"])
def test_an_error_of_the_release_counts_also_if_the_fallback_answers(
    model: TinyModel, when: str
) -> None:
    async def story() -> None:
        async with device(model, answers, when) as (own, server):
            own.gated.fail = True
            own.gated.gate.set()
            if when == "error":
                reply = await own.ask(infer())
                assert headers_of(reply) == said("fallback", "error", "answered")
            else:
                with pytest.raises(DeviceError, match="inference_failed"):
                    await own.ask(infer())
            assert len(server.requests) == (when == "error")
            live = own.stats.live()
            assert (live.requests, live.errors) == (1, 1)
            assert sum(live.sketches.latency.values()) == 0, "no latency of the fallback"

    uvloop.run(story())


@pytest.mark.parametrize(("limit", "by"), [(0.2, "fallback"), (0.05, "local")])
def test_an_unsure_answer_is_replaced_and_counts_as_it_was(
    model: TinyModel, limit: float, by: str
) -> None:
    async def story() -> None:
        async with device(model, answers, f"confidence={limit}") as (own, _):
            own.gated.gate.set()
            reply = await own.ask(infer())  # ten classes of 0.1
            assert headers_of(reply)["edgefleet-answered-by"] == by
            live = own.stats.live()
            assert (live.requests, live.confidence_count) == (1, 1)
            assert live.confidence_sum == pytest.approx(0.1)

    uvloop.run(story())


def test_without_the_fallback_an_unsure_answer_is_the_answer(model: TinyModel) -> None:
    async def refuses(_: Forwarded) -> Reply:
        return Reply(404, b'{"error": "unknown model"}')

    async def story() -> None:
        async with device(model, refuses, "confidence=0.5") as (own, _):
            own.gated.gate.set()
            reply = await own.ask(infer())
            assert headers_of(reply) == said("local", "confidence", "refused")
            assert json.loads(reply.body)["model_version"] == "7"

    uvloop.run(story())


def test_a_late_answer_is_dropped_but_the_release_is_judged_by_it(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, answers, "hedge=5ms") as (own, _):
            reply = await own.ask(infer())
            assert headers_of(reply) == said("fallback", "hedge", "answered")
            assert own.stats.in_flight == 1, "the model still runs it"
            own.gated.gate.set()
            await own.settle()
            live = own.stats.live()
            assert (live.requests, sum(live.sketches.latency.values())) == (1, 1)
            assert live.latency_us_p50 >= 5_000

    uvloop.run(story())


def test_a_late_failure_counts_although_its_client_has_an_answer(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, answers, "hedge=5ms") as (own, _):
            own.gated.fail = True
            assert headers_of(await own.ask(infer()))["edgefleet-answered-by"] == "fallback"
            own.gated.gate.set()
            await own.settle()
            assert (own.stats.requests, own.stats.errors) == (1, 1)

    uvloop.run(story())


def test_the_local_answer_wins_if_it_is_first_and_the_fallback_is_dropped(
    model: TinyModel,
) -> None:
    async def story() -> None:
        async with device(model, hangs, "hedge=5ms") as (own, server):
            asked = asyncio.ensure_future(own.ask(infer()))
            while not server.requests:  # noqa: ASYNC110 - until the hedge was sent
                await asyncio.sleep(0.001)
            own.gated.gate.set()
            reply = await asked
            assert headers_of(reply) == said("local", "hedge", "local_first")
            await asyncio.wait_for(server.lost.wait(), 30)
            assert own.metric("edgefleet_fallback_in_flight") == 0
            assert own.metric("edgefleet_fallback_up") == 1

    uvloop.run(story())


def test_if_the_hedge_fails_the_local_answer_is_awaited(model: TinyModel) -> None:
    async def garbage(_: Forwarded) -> bytes:
        own_gates[0].set()
        return b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"

    own_gates = []

    async def story() -> None:
        async with device(model, garbage, "hedge=5ms") as (own, _):
            own_gates.append(own.gated.gate)
            reply = await own.ask(infer())
            assert reply.status == 200
            assert headers_of(reply)["edgefleet-answered-by"] == "local"

    uvloop.run(story())


def test_an_answer_in_time_is_not_hedged(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, answers, "hedge=30s") as (own, server):
            own.gated.gate.set()
            assert headers_of(await own.ask(infer())) == said("local")
            assert server.connections == 0

    uvloop.run(story())


@pytest.mark.parametrize(
    ("budget", "limit", "outcome"),
    [
        ("share=0.1%,per-minute=1000", FALLBACK_BURST, "budget_share"),
        ("share=100%,per-minute=3", 3, "budget_minute"),
        ("share=100%,per-minute=1000,bytes-per-day=1000", 3, "budget_bytes"),
    ],
)
def test_a_spent_budget_gives_the_local_error_and_says_so(
    model: TinyModel, budget: str, limit: int, outcome: str
) -> None:
    async def story() -> None:
        async with device(model, answers, "missing", budget) as (own, server):
            body = b"{" + b" " * 150 + b"}"
            replies = [await own.ask(infer("other", body)) for _ in range(limit + 2)]
            assert len(server.requests) == limit
            assert [one.status for one in replies] == [200] * limit + [404] * 2
            assert headers_of(replies[-1]) == said("local", "missing", outcome)
            told = json.loads(replies[-1].body)
            assert told["error"].startswith("model: This device does not serve model other.")
            assert "The fallback did not answer: its budget" in told["hint"]

    uvloop.run(story())


async def refuses_token(_: Forwarded) -> Reply:
    return Reply(401, b"{}")


async def moves(_: Forwarded) -> Reply:
    return Reply(302, b"", headers=(("Location", "http://127.0.0.1:1/"),))


async def breaks(_: Forwarded) -> None:
    return


async def garbles(_: Forwarded) -> bytes:
    return b"\x00\xff" * 99 + b"\r\n\r\n"


async def floods(_: Forwarded) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (FALLBACK_ANSWER_BYTES + 1)


@pytest.mark.parametrize(
    ("behave", "outcome"),
    [
        (hangs, "timeout"),
        (breaks, "unreachable"),
        (garbles, "malformed"),
        (floods, "malformed"),
        (refuses_token, "refused"),
        (moves, "refused"),
    ],
)
def test_a_sick_fallback_is_left_alone_after_some_failures(
    model: TinyModel, behave: Behaviour, outcome: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def story() -> None:
        async with device(model, behave, "missing", timeout_s="0.05") as (own, server):
            replies = [await own.ask(infer("other")) for _ in range(FALLBACK_FAILURES + 2)]
            assert {one.status for one in replies} == {404}
            notes = [headers_of(one)["edgefleet-fallback"] for one in replies]
            assert (
                notes == [f"missing; {outcome}"] * FALLBACK_FAILURES + ["missing; breaker_open"] * 2
            )
            assert server.connections <= FALLBACK_FAILURES
            assert own.metric("edgefleet_fallback_up") == 0
            assert capfd.readouterr().err.count(f"does not answer ({outcome})") == 1

    uvloop.run(story())


def test_a_fallback_that_is_well_again_is_asked_again(
    model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FALLBACK_BACKOFF_S", 0.01)

    async def story() -> None:
        async with device(model, breaks, "missing") as (own, server):
            for _ in range(FALLBACK_FAILURES):
                await own.ask(infer("other"))
            server.behave = answers
            await asyncio.sleep(0.02)
            reply = await own.ask(infer("other"))
            assert headers_of(reply) == said("fallback", "missing", "answered")
            assert own.metric("edgefleet_fallback_up") == 1

    uvloop.run(story())


def test_a_port_without_a_server_is_unreachable(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, answers, "missing", url="http://127.0.0.1:1") as (own, _):
            reply = await own.ask(infer("other"))
            assert headers_of(reply) == said("local", "missing", "unreachable")

    uvloop.run(story())


@pytest.mark.parametrize(("timeout_us", "sent"), [(50_000, 1), (1, 0)])
def test_the_timeout_of_a_request_holds_for_the_fallback_and_is_no_fault_of_it(
    model: TinyModel, timeout_us: int, sent: int
) -> None:
    async def story() -> None:
        async with device(model, hangs, "missing", timeout_s="60") as (own, server):
            for _ in range(FALLBACK_FAILURES):
                reply = await own.ask(infer("other", timed(timeout_us)))
                assert headers_of(reply) == said("local", "missing", "deadline")
            assert len(server.requests) == sent * FALLBACK_FAILURES
            assert own.metric("edgefleet_fallback_up") == 1

    uvloop.run(story())


def test_forwarded_requests_in_progress_are_bounded(model: TinyModel) -> None:
    async def story() -> None:
        async with device(model, hangs, "missing", timeout_s="60") as (own, server):
            asked = [
                asyncio.ensure_future(own.ask(infer("other"))) for _ in range(FALLBACK_FORWARDS)
            ]
            while len(server.requests) < FALLBACK_FORWARDS:  # noqa: ASYNC110 - until all were sent
                await asyncio.sleep(0.001)
            reply = await own.ask(infer("other"))
            assert headers_of(reply) == said("local", "missing", "busy")
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            assert own.metric("edgefleet_fallback_in_flight") == 0

    uvloop.run(story())


def test_a_connection_is_kept_and_replaced_when_the_server_has_closed_it(
    model: TinyModel,
) -> None:
    async def story() -> None:
        async with device(model, answers, "missing") as (own, server):
            for _ in range(3):
                await own.ask(infer("other"))
            assert server.connections == 1
            used = len(server.requests)

            async def closes_a_used_one(request: Forwarded) -> Reply | None:
                return None if len(server.requests) == used + 1 else await answers(request)

            server.behave = closes_a_used_one
            reply = await own.ask(infer("other"))
            assert headers_of(reply)["edgefleet-answered-by"] == "fallback"
            assert (server.connections, len(server.requests)) == (2, used + 2)

    uvloop.run(story())


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v2/models/other/infer", {b"edgefleet-hop": b"1"}),
        ("/v2/models/../infer", {}),
    ],
)
def test_a_forwarded_request_is_not_forwarded_again(
    model: TinyModel, path: str, headers: dict[bytes, bytes]
) -> None:
    async def story() -> None:
        async with device(model, answers, "missing") as (own, server):
            with pytest.raises(OperatorError, match="does not serve model"):
                await own.ask(Request("POST", path, "", headers, BODY))
            assert server.connections == 0

    uvloop.run(story())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(
    ("ca", "note"),
    [("ca", "missing; answered"), ("other_ca", "missing; unreachable"), ("absent", "missing; setting")],
)  # fmt: skip
def test_the_server_must_have_a_certificate_of_the_ca_file(
    model: TinyModel, made: Certificates, tmp_path: Path, ca: str, note: str
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-1\n")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)

    async def story() -> None:
        async with fallback(answers, context) as server:
            files = {"ca_file": str(getattr(made, ca, tmp_path / "absent"))}
            own = Device(model, "missing", BROAD, url=server.url, token_file=str(token), **files)
            reply = await own.ask(infer("other"))
            assert headers_of(reply)["edgefleet-fallback"] == note
            assert [one.headers["authorization"] for one in server.requests] == [
                "Bearer secret-1"
            ] * (ca == "ca")
            if ca == "ca":
                token.write_text("secret-22\n")
                await own.ask(infer("other"))
                assert server.requests[-1].headers["authorization"] == "Bearer secret-22"
                token.write_text("two words\n")
                reply = await own.ask(infer("other"))
                assert headers_of(reply)["edgefleet-fallback"] == "missing; setting"
                assert len(server.requests) == 2
            own.hybrid.close()
            await own.host.close()
            await own.release.retire()

    uvloop.run(story())
