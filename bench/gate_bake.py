"""The bake, measured on the engine: a late failure, an outage, and a day in which nothing is wrong.

The rollout, its holdback, intake, windows and verdicts are the engine's own. The devices are drawn:
each reports once a minute, with a Poisson number of requests (10 on average) and a binomial number
of failed ones. `edgefleet sim run bake6h` and `outage` play the same with the whole agent.
"""

import os
from collections.abc import Callable
from functools import lru_cache, partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from cells import Cell, Found, Keys

from edgefleet.protocol.device import Telemetry
from edgefleet.protocol.rollout import ExposureSpec, GateSpec, RolloutSpec, Status
from edgefleet.testing import FakeFleet

SEEDS = int(os.environ.get("BENCH_GATE_BAKES", "100"))
MINUTE = 60.0
REQUESTS = 10.0  # a minute and device
USUAL = 0.02  # share of requests that fail anyway
LATE = 6 * 60  # minutes in the bake until the release fails
DOWN = 20  # minutes of an outage
IN_TIME = 15  # minutes
Rates = Callable[[int, npt.NDArray[np.bool_]], npt.NDArray[np.float64]]
"""The share of failed requests of each device in a minute. The mask is True for the release."""


@lru_cache(maxsize=65536)
def report(release: str, requests: int, errors: int) -> Telemetry:
    return Telemetry(
        release=release, requests=requests, errors=errors, confidence_sum=0.0, confidence_count=0,
        latency_us_p50=500, latency_us_p95=900, memory_mib=40,
    )  # fmt: skip


def baking(devices: int, *, revert_alone: bool) -> tuple[FakeFleet, str]:
    """A fleet whose last wave has passed."""
    fleet = FakeFleet(devices, interval_s=MINUTE, tick_s=10.0)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2")
    plan = RolloutSpec(
        model=fleet.model, release="2", gate=GateSpec(soak_s=0, confirm_after_s=10),
        exposure=ExposureSpec(first=devices), bake_revert_alone=revert_alone,
    )  # fmt: skip
    rollout = fleet.start(plan)
    assert fleet.run(rollout, at_most_s=86_400).status is Status.COMPLETED
    return fleet, rollout


def play(
    fleet: FakeFleet, rollout: str, rates: Rates, minutes: int, rng: np.random.Generator
) -> tuple[int | None, int | None]:
    """The first minutes with a rollback and with an alert. None for one that did not happen."""
    alert: int | None = None
    took = np.array([device.running == "2" for device in fleet.by_row])
    for minute in range(minutes):
        fleet.now += MINUTE
        requests = rng.poisson(REQUESTS, len(took))
        errors = rng.binomial(requests, rates(minute, took))
        for row, (own, bad) in enumerate(zip(requests.tolist(), errors.tolist(), strict=True)):
            telemetry = report("2" if took[row] else "1", own, bad)
            fleet.engine.intake.add_telemetry(row, telemetry, fleet.now)
        fleet.evaluate()
        state = fleet.engine.rollout(rollout).state
        if state.status is not Status.COMPLETED:
            return minute, alert
        if alert is None and state.bake is not None and state.bake.alert is not None:
            alert = minute
    return None, alert


def repeat(
    devices: int, seeds: int, rates: Rates, minutes: int, *, since: int, revert_alone: bool = False
) -> dict[str, Any]:
    """The shares of runs with a rollback and an alert, and the minutes from ``since`` on."""
    ends = []
    for seed in range(seeds):
        fleet, rollout = baking(devices, revert_alone=revert_alone)
        rng = np.random.default_rng([devices, seed])
        ends.append(play(fleet, rollout, rates, minutes, rng))
    took = [1 + back - since for back, _ in ends if back is not None]
    return {
        "rolled_back": len(took) / seeds,
        "in_time": sum(0 < one <= IN_TIME for one in took) / seeds,
        "alerts": sum(alert is not None for _, alert in ends) / seeds,
        "median_minutes": median(took) if took else None,
        "worst_minutes": max(took, default=None),
        "seeds": seeds,
    }


def late(minute: int, took: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.where(took & (minute >= LATE), 0.6, USUAL)


def outage(minute: int, took: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    down = 60 <= minute < 60 + DOWN
    return np.full(len(took), 1.0 if down else USUAL)


def fifth(minute: int, took: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """A backend of every fifth device is down, whatever its release."""
    down = 60 <= minute < 60 + DOWN
    return np.where((np.arange(len(took)) % 5 == 0) & down, 1.0, USUAL)


def usual(minute: int, took: npt.NDArray[np.bool_], *, rate: float) -> npt.NDArray[np.float64]:  # noqa: ARG001
    return np.full(len(took), rate)


NOT_JUDGED = {"before": {"rolled_back": 0.0, "alerts": 0.0}}
"""Before there was a bake, nothing was judged after the last wave."""


def cell(devices: int, seeds: int, rates: Rates, minutes: int, **how: Any) -> dict[str, Any]:
    return {**repeat(devices, seeds, rates, minutes, **how), **NOT_JUDGED}


def keys() -> Keys:
    few = max(1, SEEDS // 4)
    end = LATE + 30
    bake6h: dict[str, Cell] = {}
    outages: dict[str, Cell] = {}
    for n, seeds in ((100, SEEDS), (300, SEEDS), (1000, few)):
        bake6h[f"{n}"] = partial(cell, n, seeds, late, end, since=LATE)
        outages[f"{n}"] = partial(cell, n, seeds, outage, 120, since=60)
        outages[f"{n}_fifth"] = partial(cell, n, seeds, fifth, 120, since=60)
    for n in (5, 30):
        bake6h[f"{n}_alone"] = partial(cell, n, SEEDS, late, end, since=LATE)
        bake6h[f"{n}_revert_alone"] = partial(
            cell, n, SEEDS, late, end, since=LATE, revert_alone=True
        )
        outages[f"{n}_alone"] = partial(cell, n, SEEDS, outage, 120, since=60)
    day = 24 * 60
    null = {
        f"{rate:g}": partial(cell, 100, few, partial(usual, rate=rate), day, since=0)
        for rate in (0.02, 0.045)
    }
    return {"bake6h": bake6h, "outage": outages, "bake_null": null}


KEYS = keys()


def missed(result: Found) -> list[str]:
    """The bounds that the result does not hold."""
    wanted: dict[str, bool] = {}
    if seen := result.get("bake6h"):
        wanted["bake6h"] = all(seen[f"{n}"]["in_time"] >= 0.99 for n in (100, 300, 1000))
        wanted["bake6h alone"] = all(seen[f"{n}_alone"]["alerts"] >= 0.99 for n in (5, 30))
    if seen := result.get("outage"):
        wanted["outage"] = all(seen[f"{n}"]["rolled_back"] <= 0.02 for n in (100, 300, 1000))
        wanted["outage alone"] = all(seen[f"{n}_alone"]["rolled_back"] == 0 for n in (5, 30))
    if seen := result.get("bake_null"):
        wanted["bake_null"] = all(one["rolled_back"] <= 0.02 for one in seen.values())
    return [key for key, holds in wanted.items() if not holds]
