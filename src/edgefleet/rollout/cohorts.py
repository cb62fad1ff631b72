"""Serving figures of both sides of a rollout: the canary runs the release, the control does not.

Soft state: it is what devices happened to report since the rollout started, or since this process
did. What a verdict rested on is kept with the verdict.

What a device says of itself it may make up. So no score is above 1, and however many requests a
device claims, its mean weighs no more than that of any other busy device.
"""

from array import array
from dataclasses import dataclass, field
from statistics import median_low

from edgefleet.protocol.device import Telemetry
from edgefleet.protocol.rollout import Cohort
from edgefleet.rollout.limits import LATENCY_DEVICES_PER_COHORT, SCORES_PER_DEVICE


@dataclass(slots=True)
class Figures:
    """One side's running sums."""

    devices: int = 0
    requests: int = 0
    errors: int = 0
    confidence_sum: float = 0.0  # weighed: see _weigh
    confidence_count: float = 0.0
    latency_us_p95: dict[int, int] = field(default_factory=dict)  # row -> its last p95
    _told: bytearray = field(default_factory=bytearray)  # one byte a row: did it report?
    _scores: "array[float]" = field(default_factory=lambda: array("d"))  # a row's sum and count

    def add(self, row: int, telemetry: Telemetry) -> None:
        self._count(row)
        self.requests += telemetry.requests
        self.errors += telemetry.errors
        if telemetry.confidence_count:
            self._weigh(row, telemetry)
        known = self.latency_us_p95
        if telemetry.requests and (row in known or len(known) < LATENCY_DEVICES_PER_COHORT):
            known[row] = telemetry.latency_us_p95

    def cohort(self) -> Cohort:
        count = self.confidence_count
        return Cohort(
            devices=self.devices,
            requests=self.requests,
            errors=self.errors,
            confidence_mean=self.confidence_sum / count if count else None,
            latency_us_p95=median_low(self.latency_us_p95.values())
            if self.latency_us_p95
            else None,
        )

    def _weigh(self, row: int, telemetry: Telemetry) -> None:
        """Let the device's mean count as often as it was scored, up to SCORES_PER_DEVICE."""
        at = 2 * row
        if at >= len(self._scores):
            self._scores.extend([0.0] * max(2048, at + 2))
        total, count = self._scores[at], self._scores[at + 1]
        self._add(total, count, -1)
        total += min(telemetry.confidence_sum, telemetry.confidence_count)
        count += telemetry.confidence_count
        self._scores[at], self._scores[at + 1] = total, count
        self._add(total, count, 1)

    def _add(self, total: float, count: float, sign: int) -> None:
        if count:
            weight = min(count, float(SCORES_PER_DEVICE))
            self.confidence_sum += sign * weight * total / count
            self.confidence_count += sign * weight

    def _count(self, row: int) -> None:
        if row >= len(self._told):
            self._told.extend(bytes(max(1024, row + 1)))
        if not self._told[row]:
            self._told[row] = 1
            self.devices += 1


@dataclass(slots=True)
class Cohorts:
    """Both sides of one rollout."""

    canary: Figures = field(default_factory=Figures)
    control: Figures = field(default_factory=Figures)
