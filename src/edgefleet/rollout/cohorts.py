"""Serving figures of both sides of a rollout: the canary runs the release, the control does not.

Soft state: it is what devices happened to report since the rollout started, or since this process
did. What a verdict rested on is kept with the verdict.
"""

from dataclasses import dataclass, field
from statistics import median_low

from edgefleet.protocol.device import Telemetry
from edgefleet.protocol.rollout import Cohort
from edgefleet.rollout.limits import LATENCY_DEVICES_PER_COHORT


@dataclass(slots=True)
class Figures:
    """One side's running sums."""

    devices: int = 0
    requests: int = 0
    errors: int = 0
    confidence_sum: float = 0.0
    confidence_count: int = 0
    latency_us_p95: dict[int, int] = field(default_factory=dict)  # row -> its last p95
    _told: bytearray = field(default_factory=bytearray)  # one byte a row: did it report?

    def add(self, row: int, telemetry: Telemetry) -> None:
        self._count(row)
        self.requests += telemetry.requests
        self.errors += telemetry.errors
        self.confidence_sum += telemetry.confidence_sum
        self.confidence_count += telemetry.confidence_count
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
