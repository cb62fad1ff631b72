"""Releases that fail on one class of devices, on the real engine. Part of ``gate.py``.

The fleet has several hardware classes, of which one is bad. *Before* is the same fleet without
classes: all devices have one profile, so that the bad ones fail and no test knows what they share.
"""

import os
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from cells import Found, Keys
from gate_fleets import Case, World

from edgefleet.protocol.rollout import GateSpec
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.class_test import log_class_evidence
from edgefleet.rollout.evidence.ledger import DeviceStanding

SEEDS = int(os.environ.get("BENCH_CLASSES_SEEDS", "100"))
FLEETS = {300: SEEDS, 1_000: SEEDS, 10_000: max(1, SEEDS // 4)}  # devices: seeds
CLASSES = 8
SHARE = 0.04
BAD = "bad"
NAMED = 0.95
MOST_FAILED = 11
SMALLEST = 3  # devices, for up to 12 classes


@dataclass
class ClassCase(Case):
    """``class_fails`` is the rate in the bad class, of ``share`` of the devices."""

    share: float = SHARE
    class_fails: float = 1.0
    classes: int = CLASSES
    has_classes: bool = True  # False: nobody knows the classes


@dataclass
class ClassEnd:
    said: str
    named: bool  # the bad class, and it alone gave the release back
    falsely: int  # other classes that gave it back
    failed: int  # devices of the bad class
    rest: int  # devices of the others that got the release
    hours: float


class ClassWorld(World):
    """The devices of one case under a MemoryHub. The bad class is drawn at random."""

    case: ClassCase

    def profiles(self) -> list[str]:
        case = self.case
        self.bad = np.zeros(case.devices, np.bool_)
        self.bad[self.rng.permutation(case.devices)[: round(case.share * case.devices)]] = True
        if not case.has_classes:
            return super().profiles()
        good = self.rng.integers(1, case.classes, case.devices).tolist()
        return [BAD if bad else f"good{n}" for bad, n in zip(self.bad.tolist(), good, strict=True)]

    def fails(self, row: int) -> bool:
        if self.bad[row]:
            return bool(self.rng.random() < self.case.class_fails)
        return super().fails(row)


def play(case: ClassCase, seed: int) -> ClassEnd:
    world = ClassWorld(case, seed)
    end = world.run()
    ledger, parts = world.active.ledger, world.active.state.taken_back
    failed = ledger.rows(DeviceStanding.FAILED)
    healthy = ledger.rows(DeviceStanding.HEALTHY)
    return ClassEnd(
        said=end.said,
        named=any(part.value == BAD for part in parts),
        falsely=sum(part.value != BAD for part in parts),
        failed=int(world.bad[failed].sum()),
        rest=int((~world.bad[healthy]).sum()),
        hours=end.hours,
    )


def told(ends: list[ClassEnd]) -> dict[str, Any]:
    return {
        "named": round(sum(end.named for end in ends) / len(ends), 4),
        "falsely": sum(end.falsely for end in ends),
        "median_failed": median(end.failed for end in ends),
        "worst_failed": max(end.failed for end in ends),
        "completed": round(sum(end.said == "completed" for end in ends) / len(ends), 4),
        "back": round(sum(end.said == "back" for end in ends) / len(ends), 4),
        "median_rest": median(end.rest for end in ends),
        "median_hours": round(median(end.hours for end in ends), 2),
        "rollouts": len(ends),
    }


def many(case: ClassCase, count: int) -> dict[str, Any]:
    return told([play(case, seed) for seed in range(count)])


def class4(devices: int, seeds: int) -> dict[str, Any]:
    """A class of 4 % that always fails, beside the same fleet in which nobody knows the class."""
    before = many(ClassCase(devices, has_classes=False), max(1, seeds // 5))
    shown = ("named", "median_failed", "worst_failed", "completed")
    ours = many(ClassCase(devices), seeds)
    return {**ours, "before": {key: before[key] for key in shown}}


def classes_at_most() -> dict[str, Any]:
    """The most classes in which one of so many devices can be named, by the test itself."""
    spec = GateSpec()
    return {
        str(devices): max(
            (
                classes
                for classes in range(1, 1000)
                if log_class_evidence(devices, devices, spec.max_error_rate)
                >= alphas.CLASSES.log_bar(spec, classes)
            ),
            default=0,
        )
        for devices in (2, 3, 4)
    }


KEYS: Keys = {
    "class4": {f"of{devices}": partial(class4, devices, n) for devices, n in FLEETS.items()},
    "class_small": {
        "classes_at_most": classes_at_most,
        "three_of_300": partial(many, ClassCase(300, share=0.01, classes=12), SEEDS),
        "three_of_100": partial(many, ClassCase(100, share=0.03, classes=12), SEEDS),
    },
    "class_half": {  # a class of 4 % that fails on half of its devices
        f"of{n}": partial(many, ClassCase(n, class_fails=0.5), SEEDS // 2) for n in (300, 1_000)
    },
    "class_null": {  # no class is worse than another: none may be named
        f"fails{rate}_of{n}": partial(
            many, ClassCase(n, fails=rate / 100, class_fails=rate / 100), SEEDS
        )
        for rate in (1, 5)
        for n in (300, 1_000)
    },
}


def missed(result: Found) -> list[str]:
    """The bounds that the result does not hold."""
    bounds: list[tuple[str, bool]] = []
    if seen := result.get("class4"):
        for key, one in seen.items():
            holds = one["named"] >= NAMED and one["worst_failed"] <= MOST_FAILED
            bounds.append((f"class4 {key}", holds and one["falsely"] == 0))
    if seen := result.get("class_small"):
        bounds.append(("class_small", seen["classes_at_most"][str(SMALLEST)] >= 12))
    if seen := result.get("class_null"):
        for key, one in seen.items():
            bounds.append((f"class_null {key}", one["named"] == 0 and one["falsely"] == 0))
    return [name for name, holds in bounds if not holds]
