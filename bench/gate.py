"""Error rates of the gate, and devices reached by a bad release. Writes bench/out/gate.json.

The ledger, the gate, the exposure limit, the cohorts with their e-processes and the cuts are the
engine's own code. The devices are a model: rows instead of a million objects, in steps of ten
seconds. A device starts as soon as it is admitted, fails within a minute, confirms after one to
two minutes, is overdue after three and silent after five. Scores of devices come from requests,
through the agent's own windows. `gate_fleets.py` plays small fleets, extensions and looks on the
engine itself. `edgefleet sim` checks the same claims with the whole agent and
engine, on fewer rollouts.

Three gates: `ours`; `naive`, which at the end of a wave compares failures over wave size in whole
percent; `peeking`, a test that is correct for one evaluation but is evaluated after every step. The
last two give the release to a whole wave at once, as a fixed canary does.
"""

import json
import os
import random
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gate_bake
import gate_classes
import gate_fleets
import gate_null
import gate_sites
import numpy as np
from cells import Cell, Found, Keys, measure
from gate_model import End, Quality, Traffic, World, make_pools

from edgefleet.protocol.rollout import ExposureSpec

ROLLOUTS = int(os.environ.get("BENCH_GATE_ROLLOUTS", "500"))
SEEDS = int(os.environ.get("BENCH_GATE_SEEDS", "200"))
MILLION = 1_000_000
RATES_FLEET = 100_000
QUALITY_FLEET = 10_000
GATES = ("ours", "naive", "peeking")


def repeat(count: int, seed: int, make: Callable[[int], World]) -> list[End]:
    return [make(seed * 1_000_003 + number).run() for number in range(count)]


def told(ends: Iterable[End], counted: Callable[[End], bool]) -> dict[str, float]:
    ends = list(ends)
    return {
        "share": round(sum(map(counted, ends)) / len(ends), 5),
        "waits_for_a_person": round(sum(end.said == "waits" for end in ends) / len(ends), 5),
        "median_devices": median(end.exposed for end in ends),
        "median_minutes": round(median(end.minutes for end in ends), 1),
        "rollouts": len(ends),
    }


def rate_of(gate_name: str, seed: int, fails: float, fleet: int = RATES_FLEET) -> dict[str, Any]:
    """Rollouts of a release that fails on a share of the devices: the share that is halted."""
    ends = repeat(
        ROLLOUTS, seed,
        lambda number: World(np.random.default_rng(number), fleet, gate_name, fails=fails),
    )  # fmt: skip
    return told(ends, lambda end: end.failed)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "latency30_caught": ({"release": Traffic(slower=1.3)}, "latency"),
    "accuracy3_caught": ({"release": Traffic(), "accuracy_drop": 0.03}, "accuracy_drop"),
    "output_drift_caught": ({"release": Traffic(class_shift=0.5)}, "drift"),
    "input_drift_caught": ({"release": Traffic(input_shift=2.0)}, "drift"),
    "confidence20_caught": ({"release": Traffic(confidence=0.65)}, "confidence_drop"),
    "clean_passed": ({"release": Traffic()}, "passed"),
}
"""By name: what the release changes, and the verdict that it must get."""


def quality_of(gate_name: str, number: int, case: str) -> dict[str, Any]:
    """The share of rollouts with the verdict that the case must get."""
    changes, wanted = CASES[case]
    pools = make_pools(np.random.default_rng([11, number]), **changes)
    ends = repeat(
        ROLLOUTS, 20 + number,
        lambda seed: World(
            np.random.default_rng(seed), QUALITY_FLEET, gate_name,
            quality=Quality(random.Random(seed), pools, gate_name),
        ),
    )  # fmt: skip
    return told(ends, lambda end: end.said == wanted)


def of_gate(gate_name: str) -> dict[str, Cell]:
    rate = partial(rate_of, gate_name)
    return {
        "good1_halted": partial(rate, 1, 0.01),
        "edge5_halted": partial(rate, 2, 0.05),
        "bad10_caught": partial(rate, 3, 0.10),
        "good1_halted_10k": partial(rate, 4, 0.01, QUALITY_FLEET),
        "bad10_caught_10k": partial(rate, 5, 0.10, QUALITY_FLEET),
        **{case: partial(quality_of, gate_name, n, case) for n, case in enumerate(CASES)},
    }


BAD = {"fail20": {"fails": 0.2}, "fail8": {"fails": 0.08}, "brick2": {"bricks": 0.02}}


def bad_of_million(seed: int, release: dict[str, float]) -> dict[str, Any]:
    """Devices of a million that a bad release reaches, beside a fixed 1/10/100 canary."""
    return {**reached("ours", seed, release), "fixed": reached("naive", seed, release)}


def reached(gate_name: str, seed: int, release: dict[str, float]) -> dict[str, Any]:
    found = of_million(gate_name, seed, release)
    return {
        "median": median(end.exposed for end in found),
        "worst": max(end.exposed for end in found),
        "median_minutes": round(median(end.minutes for end in found), 1),
        "worst_minutes": round(max(end.minutes for end in found), 1),
        "failed": sum(end.failed for end in found) / len(found),
    }


def good_of_million(seed: int, release: dict[str, float]) -> dict[str, Any]:
    """Hours until a good release is on a million devices."""
    found = of_million("ours", seed, release)
    return {
        "median_hours": round(median(end.minutes for end in found) / 60, 2),
        "passed": sum(end.said == "passed" for end in found) / len(found),
    }


def of_million(gate_name: str, seed: int, release: dict[str, float]) -> list[End]:
    return repeat(
        SEEDS, seed,
        lambda number: World(np.random.default_rng(number), MILLION, gate_name, **release),
    )  # fmt: skip


LATE = {
    "late30": {"late_from": 0.3, "late_fails": 1.0},
    "late30_bricks": {"late_from": 0.3, "late_bricks": 1.0},
    "late30_fails15": {"late_from": 0.3, "late_fails": 0.15},
    "return30": {"away": 0.3, "late_fails": 1.0},
}
"""Releases that are good at first. The figure is the devices that started after it."""
FLEETS = {1_000: 100, QUALITY_FLEET: 100, MILLION: 25}  # devices: seeds
CEILINGS = (1.0, 0.1, 0.05, 0.035, 0.03, 0.02)
NO_DETECTOR = {"exposure": ExposureSpec(ceiling=1.0), "detector": False}


def late(seed: int, fleet: int, release: dict[str, float]) -> dict[str, Any]:
    """Devices that a release reaches after it began to fail, with and without the detector."""
    seeds = FLEETS[fleet]
    return {
        **late_ends(seeds, seed, fleet, **release),
        "before": late_ends(seeds // 5, seed, fleet, **release, **NO_DETECTOR)["median"],
        "fixed": late_ends(1, seed, fleet, "naive", **release)["median"],
    }


def late_ends(
    seeds: int, seed: int, fleet: int, gate_name: str = "ours", **release: Any
) -> dict[str, Any]:
    ends = repeat(
        seeds,
        seed,
        lambda number: World(np.random.default_rng(number), fleet, gate_name, **release),
    )
    return {
        "median": median(end.late for end in ends),
        "worst": max(end.late for end in ends),
        "failed": sum(end.failed for end in ends) / len(ends),
        "seeds": seeds,
    }


def ceiling_row(ceiling: float, fleet: int) -> dict[str, Any]:
    """Late failures under a ceiling, and the hours until a good release is everywhere."""
    exposure, seeds = ExposureSpec(ceiling=ceiling), FLEETS[fleet]
    failing = late_ends(seeds, 70, fleet, exposure=exposure, **LATE["late30"])
    good = repeat(
        seeds // 5, 71,
        lambda number: World(
            np.random.default_rng(number), fleet, "ours", fails=0.002, exposure=exposure
        ),
    )  # fmt: skip
    return {
        "late30": failing["median"],
        "worst": failing["worst"],
        "good_hours": round(median(end.minutes for end in good) / 60, 2),
    }


KEYS: Keys = {
    **{name: of_gate(name) for name in GATES},
    "exposure": {
        **{name: partial(bad_of_million, 40 + n, BAD[name]) for n, name in enumerate(BAD)},
        "good": partial(good_of_million, 50, {"fails": 0.002}),
        # devices go silent at any time for other reasons
        "good_lossy": partial(good_of_million, 51, {"fails": 0.002, "bricks": 0.003}),
    },
    **{
        name: {str(fleet): partial(late, 60 + n, fleet, release) for fleet in FLEETS}
        for n, (name, release) in enumerate(LATE.items())
    },
    "ceilings": {
        f"{ceiling:g}_of{fleet}": partial(ceiling_row, ceiling, fleet)
        for ceiling in CEILINGS
        for fleet in FLEETS
    },
    **gate_bake.KEYS,
    **gate_fleets.KEYS,
    **gate_classes.KEYS,
    **gate_null.KEYS,
    **gate_sites.KEYS,
}
PARTS = (gate_bake, gate_fleets, gate_classes, gate_null, gate_sites)


def missed(result: Found) -> list[str]:
    """The bounds that the result does not hold."""
    wanted: dict[str, bool] = {}
    if seen := result.get("ours"):
        share = {name: one["share"] for name, one in seen.items()}
        drift = min(share["output_drift_caught"], share["input_drift_caught"])
        wanted |= {
            "good1_halted": share["good1_halted"] <= 0.02,
            "bad10_caught": share["bad10_caught"] >= 0.99,
            "clean_passed": share["clean_passed"] >= 0.98,
            "latency30_caught": share["latency30_caught"] >= 0.95,
            "accuracy3_caught": share["accuracy3_caught"] >= 0.95,
            "drift_caught": drift >= 0.95,
        }
    if seen := result.get("exposure"):
        wanted["fail20"] = seen["fail20"]["median"] <= 200
    ceiling = ExposureSpec().ceiling
    most = {
        "late30": {"1000": 35, "10000": 200, "1000000": 10_000},
        "late30_bricks": {str(fleet): 1.1 * ceiling * fleet for fleet in FLEETS},
        "return30": dict.fromkeys(map(str, FLEETS), 20),
    }
    for key, bounds in most.items():
        for fleet, one in result.get(key, {}).items():
            wanted[f"{key} {fleet}"] = one["median"] <= bounds[fleet]
    if seen := result.get("ceilings"):
        for fleet in FLEETS:
            hours = seen[f"{ceiling:g}_of{fleet}"]["good_hours"]
            wanted[f"good_hours {fleet}"] = hours <= 1.5
    return [key for key, holds in wanted.items() if not holds]


BEFORE = Path(__file__).parent / "gate_before.json"
"""Measured once with the cells of this file, on the commit that it names."""


def main() -> int:
    before = json.loads(BEFORE.read_text())
    found = measure("gate", KEYS, __doc__ or "", before["keys"])
    whole = {key: cells for key, cells in found.items() if len(cells) == len(KEYS[key])}
    broken = [*missed(whole), *(name for part in PARTS for name in part.missed(whole))]
    part = [key for key in KEYS if key not in whole]
    print(f"missed: {', '.join(broken) or 'nothing'}")
    if part:
        print(f"not measured, or in part: {', '.join(part)}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
