"""Requests whose deadline cannot be met are refused, and never run."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edgefleet.base.errors import EdgefleetError, Overloaded
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving import backlog as module
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.backlog import Backlog
from edgefleet.serving.bounds import Bounds
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference
from edgefleet.serving.routes import render_error
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.run_times import size_class
from support.gated_model import Gated
from support.tiny_models import TinyModel, classifier, pixels

MS = 1_000_000
SIZE = size_class({"pixels": pixels(1)})


class Time:
    """The performance counter of the module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns = 1_000 * MS
        monkeypatch.setattr(module.time, "perf_counter_ns", lambda: self.ns)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def learnt(clock: Time, ms: int, queued: int = 32) -> Backlog:
    """A backlog that has seen one run of ``ms``."""
    backlog = Backlog(queued)
    backlog.start(9, 0)
    clock.ns += ms * MS
    backlog.ran(9)
    return backlog


def reason(work: Callable[[], None]) -> str:
    try:
        work()
    except EdgefleetError as error:
        return error.reason or error.code
    return ""


def test_the_wait_is_what_runs_and_waits_before_it(clock: Time) -> None:
    backlog = learnt(clock, 100)
    for name in ("runs", "waits"):
        backlog.came(name, 9)
    backlog.start(9, 0)
    clock.ns += 60 * MS
    # 40 ms are left of the run, then 100 ms of the other, then its own.
    assert reason(lambda: backlog.check(9, clock.ns + 239 * MS)) == "deadline"
    assert reason(lambda: backlog.check(9, clock.ns + 241 * MS)) == ""
    assert reason(lambda: backlog.check(9, 0)) == ""
    clock.ns += 40 * MS
    backlog.ran(9)
    backlog.went("runs")
    assert reason(lambda: backlog.check(9, clock.ns + 199 * MS)) == "deadline"
    assert reason(lambda: backlog.check(9, clock.ns + 201 * MS)) == ""


def test_a_run_longer_than_expected_does_not_count_as_less_than_nothing(clock: Time) -> None:
    backlog = learnt(clock, 100)
    backlog.came("runs", 9)
    backlog.start(9, 0)
    clock.ns += 900 * MS
    assert reason(lambda: backlog.check(9, clock.ns + 99 * MS)) == "deadline"
    assert reason(lambda: backlog.check(9, clock.ns + 101 * MS)) == ""


def test_an_idle_release_runs_any_request(clock: Time) -> None:
    backlog = learnt(clock, 10_000)
    assert reason(lambda: backlog.check(9, clock.ns + 1)) == ""


def test_a_size_that_never_ran_is_not_refused(clock: Time) -> None:
    backlog = learnt(clock, 100)
    backlog.came("runs", 20)
    assert reason(lambda: backlog.check(20, clock.ns + 1)) == ""


def test_the_next_in_the_queue_is_refused_if_it_would_be_late(clock: Time) -> None:
    backlog = learnt(clock, 100)
    assert reason(lambda: backlog.start(9, clock.ns + 99 * MS)) == "deadline"
    assert reason(lambda: backlog.start(9, clock.ns - 1)) == "timeout"
    assert reason(lambda: backlog.start(9, clock.ns + 101 * MS)) == ""


def test_a_deadline_that_has_passed_is_no_overload(clock: Time) -> None:
    backlog = learnt(clock, 100)
    backlog.came("runs", 9)
    assert reason(lambda: backlog.check(9, clock.ns - 1)) == ""


def test_a_full_queue_says_when_it_will_be_empty(clock: Time) -> None:
    backlog = learnt(clock, 2_000, queued=2)
    for name in range(3):
        backlog.came(name, 9)
    with pytest.raises(Overloaded, match="2 inferences are waiting; the limit is 2") as full:
        backlog.check(9, 0)
    assert (full.value.reason, full.value.retry_after_s) == ("queue_full", 6.0)
    assert ("Retry-After", "6") in render_error(full.value).headers


INFER = "/v2/models/digits/infer"


def asking(timeout_us: int = 0) -> Request:
    body = {
        "inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}],
        "parameters": {"timeout": timeout_us},
    }
    return Request("POST", INFER, "", {}, encode(body))


class Counting(Gated):
    runs = 0

    def run(self, inputs: object, outputs: object) -> list[object]:  # type: ignore[override]
        self.runs += 1
        return super().run(inputs, outputs)  # type: ignore[arg-type]


def host_of(model: TinyModel, queued: int = 32) -> tuple[ModelHost, Counting, ActiveRelease]:
    host, gated = ModelHost(bounds=Bounds(queue=queued)), Counting()
    release = ActiveRelease("digits", model.served("1"), gated, marks=RunMarks(), queued=queued)
    host.routes = {"digits": release}
    return host, gated, release


@pytest.fixture
def model(tmp_path: Path) -> TinyModel:
    return classifier(tmp_path / "m.onnx")


async def status(answer: Reply | Awaitable[Reply]) -> tuple[int, str]:
    try:
        reply = answer if isinstance(answer, Reply) else await answer
    except EdgefleetError as error:
        reply = render_error(error)
        return reply.status, str(decode(reply.body, dict).get("reason"))
    return reply.status, ""


def test_a_request_that_would_be_late_is_refused_at_once_and_never_runs(model: TinyModel) -> None:
    async def story() -> None:
        host, gated, release = host_of(model)
        app = OpenInference(host)
        release.backlog.learn(SIZE, 60_000 * MS)
        first = asyncio.ensure_future(status(app(asking())))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as late:
            app(asking(5_000_000))
        assert late.value.reason == "deadline"
        patient = asyncio.ensure_future(status(app(asking(200_000_000))))
        gated.gate.set()
        assert (await first, await patient) == ((200, ""), (200, ""))
        assert gated.runs == 2
        assert release.stats.refused == {"timeout": 1}
        await host.close()

    asyncio.run(story())


def test_a_request_that_became_late_in_the_queue_is_refused_and_not_run(model: TinyModel) -> None:
    async def story() -> None:
        host, gated, release = host_of(model)
        app = OpenInference(host)
        first = asyncio.ensure_future(status(app(asking())))
        second = asyncio.ensure_future(status(app(asking(30_000_000))))
        await asyncio.sleep(0)
        release.backlog.learn(SIZE, 60_000 * MS)
        gated.gate.set()
        assert await first == (200, "")
        assert await second == (503, "deadline")
        assert gated.runs == 1
        await host.close()

    asyncio.run(story())


def test_the_queue_of_a_model_is_its_setting(model: TinyModel) -> None:
    async def story() -> None:
        host, gated, _ = host_of(model, queued=1)
        app = OpenInference(host)
        answers = [asyncio.ensure_future(status(app(asking()))) for _ in range(2)]
        with pytest.raises(Overloaded, match="the limit is 1"):
            app(asking())
        gated.gate.set()
        assert await asyncio.gather(*answers) == [(200, "")] * 2
        await host.close()

    asyncio.run(story())
