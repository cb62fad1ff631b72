"""Releases that change nothing, beside a previous release that is above a limit. On the engine.

The rollouts are those of ``gate_fleets``: release 1 is rolled out, then release 2 over the same
devices. Each device serves 10 requests a minute and reports every two minutes; its windows have 100
requests, as the agent's. Failed requests are binomial; durations are lognormal (sigma 0.4, and 0.1
between devices). Devices that run release 2 all report, and up to 60 of those that wait for it.

``before`` is the gate without a baseline: a device is above a limit by its last report alone, the
share of these devices decides, and no history lifts the limit of failures.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import gate_fleets
import numpy as np
import numpy.typing as npt
from cells import Found, Keys
from msgspec.structs import replace

from edgefleet.protocol.bins import bucket
from edgefleet.protocol.device import Scores, Sketches, Telemetry
from edgefleet.protocol.rollout import Evidence, GateSpec, Judgement, LimitCounts
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.evidence.ledger import DeviceStanding

SEEDS = int(os.environ.get("BENCH_NULL_SEEDS", "100"))
POWER_SEEDS = int(os.environ.get("BENCH_NULL_POWER_SEEDS", "30"))
FLEETS = (100, 300, 1000)
REPORT_STEPS = 12  # of ten seconds, between two reports
REPORT_REQUESTS = 20
WINDOW_REPORTS = 5  # 100 requests
CONTROLS = 60
SIGMA, BETWEEN = 0.4, 0.1
TAIL = 1.645  # of the normal distribution, above which 5 % are
FAST, SLOW = bucket(50_000), bucket(150_000)
LIMIT_MS = GateSpec().max_latency_p95_ms


@dataclass(frozen=True)
class Traffic:
    """The requests of one release: the share that fails, and p95 in milliseconds."""

    errors: float = 0.002
    p95_ms: float = 20.0


@dataclass
class Case(gate_fleets.Case):
    """Release 2 over release 1. ``silent`` devices are never heard again after their start."""

    before: Traffic = field(default_factory=Traffic)
    after: Traffic = field(default_factory=Traffic)
    serves: bool = True
    silent: float = 0.0


@dataclass
class NullEnd(gate_fleets.End):
    reason: str = ""


class World(gate_fleets.World):
    """The devices of one case. ``old``: the gate without a baseline."""

    case: Case

    def __init__(self, case: Case, seed: int, *, old: bool = False) -> None:
        self.old = old
        super().__init__(case, seed)
        count = case.devices
        self.factor = self.rng.lognormal(0.0, BETWEEN, count)
        self.reports = np.zeros(count, np.int64)  # of release 2, or of release 1
        self.errors = np.zeros(count, np.int64)  # in the window that fills
        self.durations = np.zeros((count, WINDOW_REPORTS * REPORT_REQUESTS))
        self.full = np.zeros((count, 2))  # the last window: share of errors, p95 in us
        self.switched = np.zeros(count, np.bool_)
        self.flags = np.zeros((count, 2), np.bool_)  # above a limit by the last report
        self.silent: set[int] = set()

    def run(self) -> NullEnd:
        for _ in range(30):
            self._heartbeats()
            self._pass(1)
        lax = GateSpec(max_error_rate=0.3, max_silent_rate=0.3)
        before = self.roll_out("1", lax)
        assert before.said == "completed", before
        end = self.roll_out("2", self.case.spec)
        reason = self.hub.states()[-1].reason
        return NullEnd(end.said, end.asked, end.exposed, end.hours, reason)

    def gate(self, evidence: Evidence, spec: GateSpec, **looks: Any) -> Judgement:
        if not self.old:
            return gate.judge(evidence, spec, **looks)
        mine = self.flags[self.switched & (self.reports > 0)]
        slow, failing = (int(column.sum()) for column in mine.T)
        limits = LimitCounts(devices=len(mine), latency=slow, request_errors=failing)
        evidence = replace(evidence, limits=limits, history=None)
        return gate.judge(evidence, spec, **looks)

    def serve(self, active: ActiveRollout) -> None:
        if active.state.previous is None or not self.case.serves:
            return
        standings = active.ledger.standings(np.arange(self.case.devices))
        runs = (standings == DeviceStanding.TRIAL) | (standings == DeviceStanding.HEALTHY)
        runs &= ~self.away
        switching = np.flatnonzero(runs & ~self.switched)
        if len(switching):
            self._switch(switching)
        waits = np.flatnonzero((standings == DeviceStanding.NONE) & ~self.away)[:CONTROLS]
        rows = np.concatenate([np.flatnonzero(runs), waits])
        rows = rows[rows % REPORT_STEPS == self.step % REPORT_STEPS]
        if len(rows):
            self._report_requests(rows, runs[rows])

    def _switch(self, rows: npt.NDArray[np.int64]) -> None:
        """The devices begin to serve release 2: their last window is one of release 1."""
        self.switched[rows] = True
        self.reports[rows] = self.errors[rows] = 0
        size = WINDOW_REPORTS * REPORT_REQUESTS
        errors = self.rng.binomial(size, self.case.before.errors, len(rows))
        spent = self._draw(rows, self.case.before.p95_ms, size)
        self.full[rows, 0] = errors / size
        self.full[rows, 1] = np.quantile(spent, 0.95, axis=1)

    def _draw(
        self, rows: npt.NDArray[np.int64], p95_ms: float, size: int
    ) -> npt.NDArray[np.float64]:
        """Durations of requests, in microseconds."""
        middle = np.log(1000 * p95_ms * self.factor[rows]) - SIGMA * TAIL
        return np.exp(middle[:, None] + SIGMA * self.rng.standard_normal((len(rows), size)))

    def _report_requests(self, rows: npt.NDArray[np.int64], runs: npt.NDArray[np.bool_]) -> None:
        for side, traffic in ((True, self.case.after), (False, self.case.before)):
            mine = rows[runs == side]
            if not len(mine):
                continue
            errors = self.rng.binomial(REPORT_REQUESTS, traffic.errors, len(mine))
            spent = self._draw(mine, traffic.p95_ms, REPORT_REQUESTS)
            slow = np.count_nonzero(spent > 1000 * LIMIT_MS, axis=1)
            place = (self.reports[mine] % WINDOW_REPORTS) * REPORT_REQUESTS
            for column in range(REPORT_REQUESTS):
                self.durations[mine, place + column] = spent[:, column]
            self.errors[mine] += errors
            warm = self.reports[mine] > 0
            self.reports[mine] += 1
            self.flags[mine, 0] = warm & (slow > 0.05 * REPORT_REQUESTS)
            self.flags[mine, 1] = errors > 0.05 * REPORT_REQUESTS
            for row, failed, late in zip(
                mine.tolist(), errors.tolist(), slow.tolist(), strict=True
            ):
                scores = self._window(row, "2" if side else "1")
                report = Telemetry(
                    release="2" if side else "1", requests=REPORT_REQUESTS, errors=failed,
                    confidence_sum=0.0, confidence_count=0, latency_us_p50=0, latency_us_p95=0,
                    memory_mib=10, scores=scores,
                    sketches=Sketches(latency={FAST: REPORT_REQUESTS - late, SLOW: late}),
                )  # fmt: skip
                self.hub.engine.intake.add_telemetry(row, report, self.hub.now)

    def _window(self, row: int, release: str) -> Scores | None:
        """The scores of a device whose window is full."""
        if self.reports[row] % WINDOW_REPORTS:
            return None
        size = WINDOW_REPORTS * REPORT_REQUESTS
        before = self.full[row].copy()
        rate, p95 = self.errors[row] / size, float(np.quantile(self.durations[row], 0.95))
        self.full[row] = rate, p95
        self.errors[row] = 0
        if not before[1]:
            return None
        is_switch = release == "2" and self.reports[row] == WINDOW_REPORTS
        return Scores(
            from_release="1" if is_switch else release, to_release=release, requests=size,
            latency_log_ratio=float(np.log(p95 / before[1])),
            error_rate_delta=float(rate - before[0]),
            latency_us_p95=round(p95), error_rate=float(rate),
        )  # fmt: skip

    def _start(self, active: ActiveRollout) -> None:
        before = active.ledger.exposed
        super()._start(active)
        if active.state.previous is None or not self.case.silent or before == active.ledger.exposed:
            return
        for due, told in self.coming.items():
            if due <= self.step:
                continue
            for row, _ in told:
                if row not in self.silent and not self.switched[row]:
                    self.silent.add(row)
                    if self.rng.random() < self.case.silent:
                        self.away[row] = True


NULL: dict[str, dict[str, Any]] = {
    "p95_150": {"before": Traffic(p95_ms=150), "after": Traffic(p95_ms=150)},
    "p95_100": {"before": Traffic(p95_ms=100), "after": Traffic(p95_ms=100)},
    "errors3": {"before": Traffic(errors=0.03), "after": Traffic(errors=0.03)},
    "errors6": {"before": Traffic(errors=0.06), "after": Traffic(errors=0.06)},
    "trials5": {"fails": 0.05, "serves": False},
    "silent05": {"silent": 0.005, "serves": False},
}
POWER: dict[str, dict[str, Any]] = {
    "errors3_10": {"before": Traffic(errors=0.03), "after": Traffic(errors=0.10)},
    "errors6_12": {"before": Traffic(errors=0.06), "after": Traffic(errors=0.12)},
    "errors1_60": {"before": Traffic(errors=0.01), "after": Traffic(errors=0.60)},
    "p95_60_150": {"before": Traffic(p95_ms=60), "after": Traffic(p95_ms=150)},
    "p95_90_120": {"before": Traffic(p95_ms=90), "after": Traffic(p95_ms=120)},
}
LIMITS_ALONE = GateSpec(max_latency_increase=100.0)
"""Nearly no change against the control fails a release: the limits are measured alone."""


def null(release: dict[str, Any], devices: int) -> dict[str, Any]:
    """Nothing changed: rolled back, left to a person, completed."""
    ours = [World(Case(devices, **release), seed).run() for seed in range(SEEDS)]
    few = range(max(5, SEEDS // 10))
    old = [World(Case(devices, **release), seed, old=True).run() for seed in few]
    return {**told(ours), "before": told(old)}


def power(release: dict[str, Any]) -> dict[str, Any]:
    """Releases that are worse, on 1,000 devices: rolled back, and devices that had them."""
    case = Case(1000, spec=LIMITS_ALONE, **release)
    return told([World(case, seed).run() for seed in range(POWER_SEEDS)])


def told(ends: list[NullEnd]) -> dict[str, Any]:
    said = Counter(end.said for end in ends)
    reasons = Counter(end.reason for end in ends if end.said == "back")
    return {
        **{name: round(said[name] / len(ends), 4) for name in ("back", "person", "completed")},
        "stuck": said["stuck"],
        "median_exposed": median(end.exposed for end in ends),
        "median_hours": round(median(end.hours for end in ends), 2),
        "reasons": dict(reasons.most_common()),
        "rollouts": len(ends),
    }


KEYS: Keys = {
    "null": {
        f"{name}_of{devices}": partial(null, release, devices)
        for name, release in NULL.items()
        for devices in FLEETS
    },
    "power": {name: partial(power, release) for name, release in POWER.items()},
}


def missed(result: Found) -> list[str]:
    """The bounds that the result does not hold."""
    bounds: list[tuple[str, bool]] = []
    for key, one in result.get("null", {}).items():
        small = int(key.partition("_of")[2]) < 1000
        back, person = (0.04, 0.06) if small else (0.02, 0.10)
        bounds.append((f"null {key}", one["back"] <= back and one["person"] <= person))
    for key, one in result.get("power", {}).items():
        bounds.append((f"power {key}", one["back"] >= 0.95))
    return [name for name, holds in bounds if not holds]
