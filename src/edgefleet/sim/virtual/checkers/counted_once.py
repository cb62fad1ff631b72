"""The engine counts every durable report once, and nothing else."""

from collections import Counter, defaultdict
from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind, Reason
from edgefleet.rollout.census import SILENT
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import RunView

_ONCE = frozenset({OutcomeKind.CONFIRMED, OutcomeKind.TRIAL_FAILED})
_WITH_REASON = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED})
_OBSERVED = frozenset({SILENT, Reason.SERVING.value})  # by the hub, without a report of an outcome
_TOOK = frozenset({OutcomeKind.TRIAL_STARTED, OutcomeKind.CONFIRMED, OutcomeKind.TRIAL_FAILED})


class CountedOnce(Checker):
    """Counts by device, and compares the engine's sums with its own."""

    name: ClassVar[str] = "counted_once"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._took: defaultdict[str, RowSet] = defaultdict(RowSet)
        self._with_reason: Counter[str] = Counter()
        self._confirmed: defaultdict[str, RowSet] = defaultdict(RowSet)
        self._once: defaultdict[tuple[str, OutcomeKind], RowSet] = defaultdict(RowSet)
        self._known: dict[str, str] = {}
        self._compared_at = 0.0

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if self._known.get(outcome.rollout) != outcome.release:
            return
        if outcome.kind in _TOOK:
            self._took[outcome.rollout].add(rows)
        elif outcome.kind is OutcomeKind.WITHDRAWN:
            self._took[outcome.rollout].discard(rows)  # cancels the start before it; nothing ran
        new = self._once[outcome.rollout, outcome.kind].add(rows)
        if outcome.kind in _ONCE and not new.all():
            self.wrong(f"{self.named(rows[~new])}: {outcome.kind} is stored twice")
        if outcome.kind in _WITH_REASON:
            self._with_reason[outcome.rollout] += int(np.count_nonzero(new))
        elif outcome.kind is OutcomeKind.CONFIRMED:
            self._confirmed[outcome.rollout].add(rows)

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        self._known[after.id] = after.spec.release

    def ticked(self, now: float) -> None:
        if now - self._compared_at >= 60.0:
            self._compared_at = now
            self._compare(now)

    def ended(self, now: float) -> None:
        self._compare(now)

    def _compare(self, now: float) -> None:
        for rollout in self._known:
            view = self.engine.view(rollout, now)
            took = len(self._took[rollout])
            if view.exposed != took:
                self.wrong(f"{rollout}: {view.exposed} counted as exposed, {took} started it")
            stored = self._with_reason[rollout]
            reasons = view.evidence.reasons
            counted = sum(count for reason, count in reasons.items() if reason not in _OBSERVED)
            counted -= view.evidence.damaged
            if counted > stored or (counted < stored and not view.taken_back):
                self.wrong(f"{rollout}: {counted} reasons counted, {stored} stored: {reasons}")
            healthy = len(self._confirmed[rollout])
            if view.evidence.healthy > healthy:
                self.wrong(
                    f"{rollout}: {view.evidence.healthy} counted as healthy, {healthy} confirmed"
                )
