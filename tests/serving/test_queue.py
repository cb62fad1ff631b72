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
from edgefleet.serving.limits import INLINE_US, QUEUED
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip import OpenInference
from edgefleet.serving.run_marks import RunMarks
from support.gated_model import Gated
from support.tiny_models import TinyModel, classifier

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
        new = app(INFER)
        assert isinstance(new, Reply)
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


@pytest.mark.parametrize(
    ("run_us", "inline"), [(0, False), (1, True), (INLINE_US - 1, True), (INLINE_US, False)]
)
def test_only_a_model_known_to_be_fast_runs_on_the_loop(
    model: TinyModel, run_us: int, inline: bool
) -> None:
    gated = Gated()
    gated.run_us = run_us
    active = ActiveRelease("digits", model.served(), gated, marks=RunMarks())
    assert active.inline is inline
    asyncio.run(active.retire())
