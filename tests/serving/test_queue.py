"""A slow model has a bounded queue, and the process answers other requests meanwhile."""

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path

import pytest

from edgefleet.base.errors import DeviceError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.serving import Apply
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.limits import INLINE_US, LEARN_RUNS, QUEUED
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.run_times import RunTimes, size_class
from support.gated_model import Gated
from support.tiny_models import TinyModel, classifier, pixels

BODY = json.dumps(
    {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}
).encode()
INFER = Request("POST", "/v2/models/digits/infer", "", {}, BODY)


@pytest.fixture
def model(tmp_path: Path) -> TinyModel:
    return classifier(tmp_path / "m.onnx")


def gated_host(model: TinyModel) -> tuple[ModelHost, Gated]:
    host, gated = ModelHost(), Gated()
    host.routes = {"digits": ActiveRelease("digits", model.served("old"), gated, marks=RunMarks())}
    return host, gated


async def waiting(answer: Reply | Awaitable[Reply]) -> Reply:
    assert not isinstance(answer, Reply)
    return await answer


def test_one_inference_too_many_is_refused_while_the_others_are_answered(model: TinyModel) -> None:
    async def story() -> None:
        host, gated = gated_host(model)
        app = OpenInference(host)
        taken = [asyncio.ensure_future(waiting(app(INFER))) for _ in range(QUEUED + 1)]
        with pytest.raises(DeviceError, match="overloaded"):
            app(INFER)
        assert host.routes["digits"].stats.in_flight == QUEUED + 1
        assert host.routes["digits"].stats.refused.total() == 1
        ready = app(Request("GET", "/v2/health/ready", "", {}, b""))
        assert isinstance(ready, Reply)
        assert ready.status == 200
        gated.gate.set()
        assert [reply.status for reply in await asyncio.gather(*taken)] == [200] * (QUEUED + 1)
        stats = host.routes["digits"].stats
        assert (stats.requests, stats.errors, stats.in_flight) == (QUEUED + 1, 0, 0)
        await host.close()

    asyncio.run(story())


def test_what_was_asked_of_the_old_release_is_answered_by_it_after_the_swap(
    model: TinyModel,
) -> None:
    async def story() -> None:
        host, gated = gated_host(model)
        app = OpenInference(host)
        asked = [app(INFER) for _ in range(3)]
        swap = asyncio.ensure_future(
            host.apply(Apply(generation=1, models=(model.activate("new"),)))
        )
        while host.routes["digits"].release == "old":  # noqa: ASYNC110 - a swap sends no signal at its end
            await asyncio.sleep(0)
        new = await waiting(app(INFER))
        assert json.loads(new.body)["model_version"] == "new"
        gated.gate.set()
        old = [await waiting(answer) for answer in asked]
        assert {json.loads(reply.body)["model_version"] for reply in old} == {"old"}
        await swap
        stats = host.routes["digits"].stats
        assert (stats.requests, stats.errors) == (1, 0)

    asyncio.run(story())


def test_a_failure_in_the_worker_is_an_error_of_the_release(model: TinyModel) -> None:
    async def story() -> None:
        host, gated = gated_host(model)
        gated.fail = True
        gated.gate.set()
        with pytest.raises(DeviceError, match="inference_failed"):
            await waiting(OpenInference(host)(INFER))
        stats = host.routes["digits"].stats
        assert (stats.requests, stats.errors, stats.in_flight) == (1, 1, 0)
        await host.close()

    asyncio.run(story())


def runs_on_loop(active: ActiveRelease, batch: int = 1) -> bool:
    return isinstance(active.infer({"pixels": pixels(batch)}, ["probabilities"]), tuple)


@pytest.mark.parametrize(
    ("runs", "us", "inline"),
    [
        (0, 0, False),
        (LEARN_RUNS - 1, 1, False),
        (LEARN_RUNS, 1, True),
        (LEARN_RUNS, INLINE_US - 1, True),
        (LEARN_RUNS, INLINE_US, False),
    ],
)
def test_only_a_run_known_to_be_fast_is_done_on_the_loop(
    model: TinyModel, runs: int, us: int, inline: bool
) -> None:
    async def story() -> None:
        gated, times = Gated(), RunTimes()
        gated.gate.set()
        for _ in range(runs):
            times.ran(size_class({"pixels": pixels(1)}), us)
        active = ActiveRelease("digits", model.served(), gated, marks=RunMarks(), times=times)
        assert runs_on_loop(active) is inline
        assert not runs_on_loop(active, batch=8), "a larger batch is not known"
        await active.retire()

    asyncio.run(story())


def test_a_model_that_became_slow_leaves_the_loop() -> None:
    times = RunTimes()
    for _ in range(LEARN_RUNS):
        times.ran(9, 10)
    assert times.is_fast(9)
    times.ran(9, 100 * INLINE_US)
    assert not times.is_fast(9)
    other = RunTimes()
    other.learn(((9, 10.0), (12, 2.0 * INLINE_US)))
    assert other.is_fast(9)
    assert not other.is_fast(12)


def test_a_run_waits_for_the_run_in_the_thread(model: TinyModel) -> None:
    async def story() -> None:
        gated, times = Gated(), RunTimes()
        active = ActiveRelease("digits", model.served(), gated, marks=RunMarks(), times=times)
        first = active.infer({"pixels": pixels(1)}, ["probabilities"])
        times.learn(((size_class({"pixels": pixels(1)}), 1.0),))
        assert not runs_on_loop(active), "a model runs one inference at a time"
        gated.gate.set()
        assert isinstance(first, asyncio.Future)
        await first
        await active.retire()

    asyncio.run(story())
