"""The tests that can fail a release, each with its share of alpha. No other place has a share.

A release that is just within its limits is rolled back with a probability of at most ``PROMISED``
times the alpha of its plan, over the whole rollout: by the union bound, the sum of all shares. A
test may divide its share among parts (metrics that are on, classes, looks).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgefleet.protocol.metric_kinds import ChangeMetric, Metric
from edgefleet.protocol.metrics import CHANGES, LIMITS
from edgefleet.protocol.rollout import GateSpec

PROMISED: Final = 6.0
"""Largest sum of the shares, in multiples of the plan's alpha: 6 % with the default of 1 %."""


@dataclass(frozen=True, slots=True)
class AlphaShare:
    """The share of one test over a whole rollout: ``times`` the alpha of the plan."""

    key: str
    tests: str  # for the documentation
    times: float

    def alpha(self, spec: GateSpec, parts: float = 1.0) -> float:
        """The false-alarm rate of one of ``parts`` equal parts of the test."""
        return self.times * spec.alpha / parts

    def log_bar(self, spec: GateSpec, parts: float = 1.0) -> float:
        """The log e-value at which one of ``parts`` equal parts of the test fails a release."""
        return -math.log(self.alpha(spec, parts))


FAILURES: Final = AlphaShare("failures", "failed devices, all evidence together", 1.0)
LATE: Final = AlphaShare("late", "failed devices, from any bucket of starts on", 0.5)
ENDS: Final = AlphaShare(
    "ends", "failed devices, exact tests at the ends of all waves together", 2.0
)
SILENCE: Final = AlphaShare("silence", "silent devices, all evidence together", 0.1)
CLASSES: Final = AlphaShare(
    "classes", "failed devices of one class, divided among the classes of the plan", 0.5
)
LIMITS_SHARE: Final = AlphaShare("limits", "absolute limits, divided among them", 0.3)
CHANGES_SHARE: Final = AlphaShare(
    "changes", "changes against the control, divided among those that are on", 0.7
)
BAKE: Final = AlphaShare(
    "bake", "request errors and latency by windows of time in the bake, divided between them", 0.2
)
LABELS: Final = AlphaShare(
    "labels", "accuracy by late labels, in waves and bake, divided among rounds of devices", 0.1
)
HISTORY: Final = AlphaShare("history", "the limit of failures, where earlier releases lift it", 0.4)
CUSTOM: Final = AlphaShare("custom", "a custom gate that returns an e-value", 0.1)

SHARES: Final = (
    FAILURES, LATE, ENDS, CLASSES, SILENCE, LIMITS_SHARE, CHANGES_SHARE, LABELS, BAKE, HISTORY,
    CUSTOM,
)  # fmt: skip
"""Every test, in the order in which the documentation names them."""


_COMPARED: Final = tuple(metric for metric in CHANGES if not metric.of_labels)


def limits_log_bar(spec: GateSpec) -> float:
    """The log e-value at which one absolute limit fails a release."""
    return LIMITS_SHARE.log_bar(spec, _count_on(LIMITS, spec))


def changes_log_bar(spec: GateSpec) -> float:
    """The log e-value at which one change against the control fails a release."""
    return CHANGES_SHARE.log_bar(spec, _count_on(_COMPARED, spec))


def change_log_bar(metric: ChangeMetric, spec: GateSpec) -> float:
    """The log e-value at which ``metric`` fails a release."""
    return LABELS.log_bar(spec) if metric.of_labels else changes_log_bar(spec)


def _count_on(metrics: Iterable[Metric], spec: GateSpec) -> int:
    return max(1, sum(metric.is_on(spec) for metric in metrics))
