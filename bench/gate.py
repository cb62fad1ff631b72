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
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import gate_classes
import gate_fleets
import numpy as np
from gate_bake import measure as measure_bake
from gate_bake import missed as missed_of_bake
from gate_model import End, Pools, Quality, Traffic, World, make_pools
from gate_sites import measure as measure_sites
from gate_sites import missed as missed_of_sites
from result_file import write

from edgefleet.protocol.rollout import ExposureSpec

ROLLOUTS = int(os.environ.get("BENCH_GATE_ROLLOUTS", "2000"))
SEEDS = int(os.environ.get("BENCH_GATE_SEEDS", "200"))
BAKES = int(os.environ.get("BENCH_GATE_BAKES", "100"))
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


def rates(gate_name: str) -> dict[str, dict[str, float]]:
    def world(fails: float, fleet: int = RATES_FLEET) -> Callable[[int], World]:
        return lambda seed: World(np.random.default_rng(seed), fleet, gate_name, fails=fails)

    failed: Callable[[End], bool] = lambda end: end.failed  # noqa: E731 - named for readability
    return {
        "good1_halted": told(repeat(ROLLOUTS, 1, world(0.01)), failed),
        "edge5_halted": told(repeat(ROLLOUTS, 2, world(0.05)), failed),
        "bad10_caught": told(repeat(ROLLOUTS, 3, world(0.10)), failed),
        "good1_halted_10k": told(repeat(ROLLOUTS, 4, world(0.01, QUALITY_FLEET)), failed),
        "bad10_caught_10k": told(repeat(ROLLOUTS, 5, world(0.10, QUALITY_FLEET)), failed),
    }


def make_cases() -> dict[str, tuple[Pools, str]]:
    rng = np.random.default_rng(11)
    return {
        "latency30_caught": (make_pools(rng, Traffic(slower=1.3)), "latency"),
        "accuracy3_caught": (make_pools(rng, Traffic(), accuracy_drop=0.03), "accuracy_drop"),
        "output_drift_caught": (make_pools(rng, Traffic(class_shift=0.5)), "drift"),
        "input_drift_caught": (make_pools(rng, Traffic(input_shift=2.0)), "drift"),
        "confidence20_caught": (make_pools(rng, Traffic(confidence=0.65)), "confidence_drop"),
        "clean_passed": (make_pools(rng, Traffic()), "passed"),
    }


def quality(gate_name: str, cases: dict[str, tuple[Pools, str]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for number, (name, (pools, wanted)) in enumerate(cases.items()):

        def world(seed: int, pools: Pools = pools) -> World:
            return World(
                np.random.default_rng(seed), QUALITY_FLEET, gate_name,
                quality=Quality(random.Random(seed), pools, gate_name),
            )  # fmt: skip

        ends = repeat(ROLLOUTS, 20 + number, world)
        found[name] = told(ends, lambda end, wanted=wanted: end.said == wanted)
    worst = min(("output_drift_caught", "input_drift_caught"), key=lambda key: found[key]["share"])
    found["drift_caught"] = found[worst]
    return found


def exposed(gate_name: str) -> dict[str, Any]:
    def ends(seed: int, **release: float) -> list[End]:
        return repeat(
            SEEDS, seed,
            lambda number: World(np.random.default_rng(number), MILLION, gate_name, **release),
        )  # fmt: skip

    answer: dict[str, Any] = {}
    for number, (name, release) in enumerate(
        {"fail20": {"fails": 0.2}, "fail8": {"fails": 0.08}, "brick2": {"bricks": 0.02}}.items()
    ):
        found = ends(40 + number, **release)
        answer[name] = {
            "median": median(end.exposed for end in found),
            "worst": max(end.exposed for end in found),
            "median_minutes": round(median(end.minutes for end in found), 1),
            "worst_minutes": round(max(end.minutes for end in found), 1),
            "failed": sum(end.failed for end in found) / len(found),
        }
    good = ends(50, fails=0.002)
    answer["good_hours"] = round(median(end.minutes for end in good) / 60, 2)
    lost = ends(51, fails=0.002, bricks=0.003)  # devices go silent at any time for other reasons
    answer["good_lossy_hours"] = round(median(end.minutes for end in lost) / 60, 2)
    answer["good_passed"] = sum(end.said == "passed" for end in good) / len(good)
    return answer


LATE = {
    "late30": {"late_from": 0.3, "late_fails": 1.0},
    "late30_bricks": {"late_from": 0.3, "late_bricks": 1.0},
    "late30_fails15": {"late_from": 0.3, "late_fails": 0.15},
    "return30": {"away": 0.3, "late_fails": 1.0},
}
"""Releases that are good at first. The figure is the devices that started after it."""
FLEETS = {1_000: 100, QUALITY_FLEET: 100, MILLION: 25}  # devices: seeds
CEILINGS = (1.0, 0.1, 0.05, 0.035, 0.03, 0.02)


def late_failures() -> dict[str, Any]:
    """Devices that a release reaches after it began to fail, with and without the detector."""
    found: dict[str, Any] = {}
    before = {"exposure": ExposureSpec(ceiling=1.0), "detector": False}
    for number, (name, release) in enumerate(LATE.items()):
        for fleet, seeds in FLEETS.items():
            ours = late_ends(seeds, 60 + number, fleet, **release)
            found.setdefault(name, {})[str(fleet)] = {
                **ours,
                "before": late_ends(seeds // 5, 60 + number, fleet, **release, **before)["median"],
                "fixed": late_ends(1, 60 + number, fleet, "naive", **release)["median"],
            }
            print(f"{name} {fleet}: {json.dumps(found[name][str(fleet)])}", flush=True)
    found["ceilings"] = [ceiling_row(ceiling) for ceiling in CEILINGS]
    return found


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


def ceiling_row(ceiling: float) -> dict[str, Any]:
    """Late failures under a ceiling, and the hours until a good release is everywhere."""
    row: dict[str, Any] = {"ceiling": ceiling}
    exposure = ExposureSpec(ceiling=ceiling)
    for fleet, seeds in FLEETS.items():
        late = late_ends(seeds, 70, fleet, exposure=exposure, **LATE["late30"])
        good = repeat(
            seeds // 5, 71,
            lambda number, fleet=fleet: World(
                np.random.default_rng(number), fleet, "ours", fails=0.002, exposure=exposure
            ),
        )  # fmt: skip
        row[str(fleet)] = {
            "late30": late["median"],
            "worst": late["worst"],
            "good_hours": round(median(end.minutes for end in good) / 60, 2),
        }
    print(f"ceiling {ceiling:g}: {json.dumps(row)}", flush=True)
    return row


def late_goals(found: dict[str, Any]) -> dict[str, bool]:
    default = next(row for row in found["ceilings"] if row["ceiling"] == ExposureSpec().ceiling)
    most = {"1000": 35, "10000": 200, "1000000": 10_000}
    return {
        **{f"late30 {fleet}": found["late30"][fleet]["median"] <= most[fleet] for fleet in most},
        **{f"good_hours {fleet}": default[fleet]["good_hours"] <= 1.5 for fleet in most},
        **{
            f"late30_bricks {fleet}": found["late30_bricks"][fleet]["median"]
            <= 1.1 * ExposureSpec().ceiling * int(fleet)
            for fleet in most
        },
        **{f"return30 {fleet}": found["return30"][fleet]["median"] <= 20 for fleet in most},
    }


def main() -> None:
    began = time.perf_counter()
    result: dict[str, Any] = {}
    cases = make_cases()
    for name in GATES:
        full = {**rates(name), **quality(name, cases)}
        result[name] = {key: said["share"] for key, said in full.items()}
        result[name]["detail"] = full
        print_gate(name, full)
    result["exposure"] = {"ours": exposed("ours"), "fixed": exposed("naive")}
    for name, said in result["exposure"].items():
        print(f"exposure.{name}: {json.dumps(said)}")
    for key, run in {**gate_fleets.KEYS, **gate_classes.KEYS}.items():
        result[key] = run()
        print(f"{key}: {json.dumps(result[key])}", flush=True)
    result["late"] = late_failures()
    result["bake"] = measure_bake(BAKES)
    result["site_dark"] = measure_sites()
    for name in ("bake6h", "outage", "bake_null"):
        for case, said in result["bake"][name].items():
            print(f"{name}.{case}: {json.dumps(said)}", flush=True)
    result["rollouts"] = ROLLOUTS
    result["seeds"] = SEEDS
    result["wall_s"] = round(time.perf_counter() - began, 1)
    result["cores_used"] = 1
    path = write("gate", result)
    ours = result["ours"]
    wanted = {
        "good1_halted": ours["good1_halted"] <= 0.02,
        "bad10_caught": ours["bad10_caught"] >= 0.99,
        "clean_passed": ours["clean_passed"] >= 0.98,
        **{
            key: ours[key] >= 0.95
            for key in ("latency30_caught", "accuracy3_caught", "drift_caught")
        },
        "fail20": result["exposure"]["ours"]["fail20"]["median"] <= 200,
        **late_goals(result["late"]),
    }
    missed = [key for key, held in wanted.items() if not held]
    missed += (
        gate_fleets.missed(result) + gate_classes.missed(result) + missed_of_bake(result["bake"])
    )
    missed += missed_of_sites(result["site_dark"])
    print(f"{path}: {result['wall_s']} s; missed: {', '.join(missed) or 'nothing'}")
    raise SystemExit(bool(missed))


def print_gate(name: str, full: dict[str, dict[str, float]]) -> None:
    print(f"{name:22} {'share':>8} {'waits':>8} {'devices':>9} {'minutes':>8}")
    for key, said in full.items():
        print(
            f"  {key:20} {said['share']:8.4f} {said['waits_for_a_person']:8.4f} "
            f"{said['median_devices']:9g} {said['median_minutes']:8g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
