"""Serving figures of both sides of a rollout: the canary runs the release, the control does not.

Soft state: the figures that devices reported since the rollout or this process started. Only golden
accuracy is rebuilt from the store. A verdict is stored together with its evidence.

A device may report false figures. So no score exceeds 1, and the mean of a device weighs no more
than that of any other busy device, even if the device reports more requests.
"""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from statistics import median_low
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Outcome, Scores, Telemetry
from edgefleet.protocol.metrics import CHANGES, LABELLED_ACCURACY, NEAR_ZERO
from edgefleet.protocol.rollout import Cohort, Difference, GateSpec, LimitCounts, LimitPairs
from edgefleet.rollout.evidence.device_limits import DeviceLimits, SwitchPairs
from edgefleet.rollout.evidence.labels import Labels
from edgefleet.rollout.evidence.neighbours import Neighbours
from edgefleet.rollout.evidence.pairing import (
    Pair,
    Pairing,
    bet_on,
    continued,
    difference,
    place_bet,
    reach,
    stored,
)
from edgefleet.rollout.evidence.sequential import Bet
from edgefleet.rollout.evidence.sketch import Sketch, weighed, weight
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.stored_bet import StoredBet
from edgefleet.rollout.limits import (
    LATENCY_DEVICES_PER_COHORT,
    REFUSAL_KINDS,
    SCORES_PER_DEVICE,
)

_CONFIRMED: Final = tuple(
    (metric, metric.confirmed) for metric in CHANGES if metric.confirmed is not None
)
"""The changes that a device reports with its confirmation, each with its reader."""

OTHER_KINDS: Final = "other"  # of refusals

_SCORED: Final = tuple(metric for metric in CHANGES if metric.confirmed is None)


@dataclass(slots=True)
class Figures:
    """Running sums of one cohort."""

    devices: int = 0
    requests: int = 0
    errors: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    refusal_example: str = ""
    rated: int = 0
    left: int = 0
    _weight: int = 0  # of all reports, each as at most REPORT_WEIGHT requests
    _errors_weighed: int = 0
    _asked: int = 0  # likewise, with refused requests
    _refused_weighed: int = 0
    _refused: int = 0
    _cpu_us: float = 0.0  # weighted, of ``_cpu_weight`` requests
    _cpu_weight: int = 0
    confidence_sum: float = 0.0  # weighted: see _weigh
    confidence_count: float = 0.0
    sketch: Sketch = field(default_factory=Sketch)
    latency_us_p95: dict[int, int] = field(
        default_factory=dict
    )  # row -> last p95, for agents without sketches
    _reported: bytearray = field(default_factory=bytearray)  # one byte for each row: 1 if it did
    _scores: "array[float]" = field(default_factory=lambda: array("d"))  # sum and count of each row

    def has(self, row: int) -> bool:
        """True if the device has reported to this cohort."""
        return row < len(self._reported) and bool(self._reported[row])

    def have(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """``has`` for each of ``rows``."""
        reach(self._reported, int(rows.max(initial=0)))
        found: npt.NDArray[np.bool_] = np.frombuffer(self._reported, np.uint8)[rows] == 1
        return found

    def add(self, row: int, telemetry: Telemetry) -> None:
        reach(self._reported, row)
        if not self._reported[row]:
            self._reported[row] = 1
            self.devices += 1
        self._count(telemetry, 1)
        if telemetry.confidence_count:
            self._weigh(row, telemetry)
        if telemetry.sketches is not None:
            self.sketch.add(telemetry.sketches)
        elif telemetry.requests:
            known = self.latency_us_p95
            if row in known or len(known) < LATENCY_DEVICES_PER_COHORT:
                known[row] = telemetry.latency_us_p95

    def add_all(self, rows: Rows, telemetry: Telemetry) -> None:
        """``add`` for many devices that report the same."""
        reach(self._reported, int(rows.max()))
        reported = np.frombuffer(self._reported, np.uint8)
        self.devices += int(np.count_nonzero(reported[rows] == 0))
        reported[rows] = 1
        self._count(telemetry, len(rows))
        if telemetry.confidence_count:
            self._weigh_all(rows, telemetry)
        if telemetry.sketches is not None:
            self.sketch.add(telemetry.sketches, times=len(rows))
        elif telemetry.requests:
            known = self.latency_us_p95
            spare = LATENCY_DEVICES_PER_COHORT - len(known)
            counted = [row for row in rows.tolist() if row in known] if known else []
            counted += [row for row in rows.tolist() if row not in known][:spare]
            known.update(dict.fromkeys(counted, telemetry.latency_us_p95))

    def _count(self, telemetry: Telemetry, times: int) -> None:
        requests, errors = telemetry.requests, telemetry.errors
        self.requests += times * requests
        self.errors += times * errors
        self._weight += times * weight(requests)
        self._errors_weighed += times * weighed(min(errors, requests), requests)
        if requests and telemetry.cpu_s:
            self._cpu_us += times * weight(requests) * telemetry.cpu_s * 1e6 / requests
            self._cpu_weight += times * weight(requests)
        self._asked += times * weight(telemetry.asked)
        if telemetry.refused:
            self._refused += times * telemetry.refused
            self._refused_weighed += times * weighed(telemetry.refused, telemetry.asked)
            for kind, count in telemetry.refusals.items():
                known = kind in self.refusals or len(self.refusals) < REFUSAL_KINDS
                self.refusals[kind if known else OTHER_KINDS] += times * count
            self.refusal_example = telemetry.refusal_example or self.refusal_example

    def cohort(self) -> Cohort:
        count = self.confidence_count
        p95 = self.sketch.latency_us(0.95)
        if p95 is None and self.latency_us_p95:  # agents without sketches
            p95 = median_low(self.latency_us_p95.values())
        return Cohort(
            devices=self.devices,
            requests=self.requests,
            errors=self.errors,
            refused=self._refused,
            refusals=dict(self.refusals),
            refusal_example=self.refusal_example,
            refusal_share=self._refused_weighed / self._asked if self._asked else None,
            error_share=self._errors_weighed / self._weight if self._weight else None,
            confidence_mean=self.confidence_sum / count if count else None,
            latency_us_p50=self.sketch.latency_us(0.50),
            latency_us_p95=p95,
            cpu_us=self._cpu_us / self._cpu_weight if self._cpu_weight else None,
            confidence=self.sketch.confidence,
            classes=self.sketch.classes,
            inputs=self.sketch.inputs,
            rated=self.rated,
            left=self.left,
        )

    def rate(self, scores: Scores) -> None:
        """Count how the requests of a device changed, if its scores say it."""
        change = scores.request_rate_change
        if change is not None:
            self.rated += 1
            self.left += change <= -NEAR_ZERO

    def _weigh(self, row: int, telemetry: Telemetry) -> None:
        """Weight the mean of the device by its number of scores, at most SCORES_PER_DEVICE."""
        at = 2 * row
        if at >= len(self._scores):
            self._scores.extend([0.0] * max(2048, at + 2))
        total, count = self._scores[at], self._scores[at + 1]
        self._add(total, count, -1)
        total += min(telemetry.confidence_sum, telemetry.confidence_count)
        count += telemetry.confidence_count
        self._scores[at], self._scores[at + 1] = total, count
        self._add(total, count, 1)

    def _weigh_all(self, rows: Rows, telemetry: Telemetry) -> None:
        last = 2 * int(rows.max())
        if last >= len(self._scores):
            self._scores.extend([0.0] * max(2048, last + 2 - len(self._scores)))
        scores = np.frombuffer(self._scores).reshape(-1, 2)
        mine = scores[rows]
        self._add_all(mine, -1)
        mine[:, 0] += min(telemetry.confidence_sum, telemetry.confidence_count)
        mine[:, 1] += telemetry.confidence_count
        self._add_all(mine, 1)
        scores[rows] = mine

    def _add_all(self, scores: npt.NDArray[np.float64], sign: int) -> None:
        total, count = scores[scores[:, 1] > 0].T
        weight = np.minimum(count, float(SCORES_PER_DEVICE))
        self.confidence_sum += sign * float(np.sum(weight * total / count))
        self.confidence_count += sign * float(np.sum(weight))

    def _add(self, total: float, count: float, sign: int) -> None:
        if count:
            weight = min(count, float(SCORES_PER_DEVICE))
            self.confidence_sum += sign * weight * total / count
            self.confidence_count += sign * weight


@dataclass(slots=True)
class Cohorts:
    """Canary and control of one rollout, and the bets on their differences."""

    canary: Figures = field(default_factory=Figures)
    control: Figures = field(default_factory=Figures)
    neighbours: Neighbours = field(default_factory=Neighbours)
    _bets: dict[str, Bet] = field(default_factory=dict)
    _pairing: Pairing = field(default_factory=Pairing)
    _cost_pairing: Pairing = field(default_factory=Pairing)  # of ``Telemetry.costs``
    _limits: DeviceLimits = field(default_factory=DeviceLimits)
    _control_limits: DeviceLimits = field(default_factory=DeviceLimits)
    _switched: SwitchPairs = field(default_factory=SwitchPairs)
    labels: Labels = field(default_factory=Labels)

    def add_canary(
        self, row: int, telemetry: Telemetry, gate: GateSpec, memory_limit_mib: int
    ) -> None:
        """Add the serving figures of a device that runs the release."""
        is_warm = self.canary.has(row)  # the first report has the warm-up
        self.canary.add(row, telemetry)
        self._limits.add(row, telemetry, gate, memory_limit_mib, is_warm=is_warm)
        scores, costs = telemetry.scores, telemetry.costs
        if costs is not None and costs.from_release != costs.to_release == telemetry.release:
            self._bet_on(self._cost_pairing.add_canary(row, costs), gate)
        if scores is None or scores.to_release != telemetry.release:
            return
        self._switched.add(row, scores, gate)
        if scores.from_release != scores.to_release:
            self.canary.rate(scores)
            self._bet_on(self._pairing.add_canary(row, scores), gate)

    def add_canaries(
        self, rows: Rows, telemetry: Telemetry, gate: GateSpec, memory_limit_mib: int
    ) -> None:
        """``add_canary`` for many devices that report the same."""
        if telemetry.has_scores:  # each device gets a pair of its own
            for row in rows.tolist():
                self.add_canary(row, telemetry, gate, memory_limit_mib)
            return
        warm = self.canary.have(rows)
        self.canary.add_all(rows, telemetry)
        for is_warm in (False, True):
            mine = rows[warm == is_warm]
            self._limits.add_all(mine, telemetry, gate, memory_limit_mib, is_warm=is_warm)

    def add_controls(
        self, rows: Rows, telemetry: Telemetry, gate: GateSpec, memory_limit_mib: int
    ) -> None:
        """``add_control`` for many devices that report the same."""
        if not telemetry.has_scores:
            self.control.add_all(rows, telemetry)
            self._control_limits.add_all(rows, telemetry, gate, memory_limit_mib, is_warm=True)
            return
        for row in rows.tolist():
            self.add_control(row, telemetry, gate, memory_limit_mib)

    def add_control(
        self, row: int, telemetry: Telemetry, gate: GateSpec, memory_limit_mib: int
    ) -> None:
        """Add the serving figures of a device that runs the previous release."""
        self.control.add(row, telemetry)
        self._control_limits.add(row, telemetry, gate, memory_limit_mib, is_warm=True)
        scores, costs = telemetry.scores, telemetry.costs
        if costs is not None and costs.from_release == costs.to_release == telemetry.release:
            self._bet_on(self._cost_pairing.add_control(row, costs), gate)
        if scores is None or not scores.from_release == scores.to_release == telemetry.release:
            return
        self.control.rate(scores)
        self._bet_on(self._pairing.add_control(row, scores), gate)

    def confirmed(self, outcome: Outcome, gate: GateSpec, *, times: int = 1) -> None:
        """Add the golden accuracies of confirmed devices, of this release and the previous one."""
        for metric, confirmed in _CONFIRMED:
            change = confirmed(outcome)
            if change is not None:
                place_bet(self._bets, metric, metric.worse_by(change), gate, times)

    def stored_bets(self) -> tuple[StoredBet, ...]:
        """The bets that outcomes do not rebuild, to be stored."""
        return (*stored(self._bets, _SCORED), *self.neighbours.stored(), *self.labels.stored())

    def stored_pairs(self) -> dict[str, tuple[LimitPairs, ...]]:
        """The devices that were compared with the limits before and after their switch."""
        return self._switched.rounds()

    def resume(
        self,
        bets: tuple[StoredBet, ...],
        pairs: dict[str, tuple[LimitPairs, ...]],
        gate: GateSpec,
        *,
        is_started: bool = True,
    ) -> None:
        """Continue stored bets and pairs. To be called before the first report."""
        self._switched = SwitchPairs(pairs)
        self.labels = Labels(is_resumed=is_started)
        metrics = {metric.key: metric for metric in CHANGES}
        for found in bets:
            metric = metrics.get(found.metric)
            if metric is not None and found.model:
                self.neighbours.resume(found, metric, gate)
            elif metric is LABELLED_ACCURACY:
                self.labels.resume(found, gate)
            elif metric is not None:
                self._bets[metric.key] = continued(found, metric, gate)

    def differences(self) -> tuple[Difference, ...]:
        """The results of the bets, in a fixed order."""
        found: list[Difference] = []
        for metric in CHANGES:
            bet = self._bets.get(metric.key)
            if bet is not None:
                found += filter(None, [difference(metric, bet)])
            elif metric.of_neighbours and self.neighbours.bets:
                found += filter(None, [self.neighbours.difference(metric)])
            elif metric.of_labels:
                found += filter(None, [self.labels.difference()])
        return tuple(found)

    def limits(self, *, has_previous: bool) -> LimitCounts:
        """The devices above the absolute limits. ``has_previous``: of the rollout."""
        ours = self._limits.side()
        return LimitCounts(
            devices=ours.devices,
            latency=ours.latency,
            request_errors=ours.request_errors,
            refusals=ours.refusals,
            memory=ours.memory,
            has_previous=has_previous,
            control=self._control_limits.side(),
            pairs=self._switched.rounds(),
        )

    def _bet_on(self, pair: Pair | None, gate: GateSpec) -> None:
        if pair is not None:
            own = (metric for metric in CHANGES if not metric.of_neighbours)
            bet_on(self._bets, own, pair, gate)
