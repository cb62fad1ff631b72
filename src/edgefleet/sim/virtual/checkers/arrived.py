"""After a completed rollout every reachable device runs the release, or has reported why not."""

from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.why import WAITS
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.reports import IDLE_CODE
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.scenario import MODEL
from edgefleet.sim.virtual.truth import RunView

_BAD = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED})
_MOVING_S = 600.0  # without any start: the rollout is stuck
_UNDER_TEST = 2  # the number of the release in ``serves``


class Arrived(Checker):
    """Compares the devices' true state with their reports."""

    name: ClassVar[str] = "arrived"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._excused = RowSet()
        self._confirmed = RowSet()
        self._enrolled = 0
        self._started_at = 0.0  # the last start of any device

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if after.status is Status.COMPLETED:
            self._enrolled = len(self.engine.fleet)

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            self._started_at = now
        elif outcome.kind in _BAD:
            self._excused.add(rows)
        elif outcome.kind is OutcomeKind.CONFIRMED and self._is_tried(outcome):
            self._confirmed.add(rows)

    def ended(self, now: float) -> None:
        states = [
            state
            for state in self.engine.states()
            if state.spec.release == self.run.release_under_test
        ]
        if [state.status for state in states] != [Status.COMPLETED]:
            return
        missing = (self.run.serves() != _UNDER_TEST) & self.run.reachable()
        rows = np.flatnonzero(missing[: self._enrolled])
        left = rows[~self._excused.has(rows)].tolist()
        left = [row for row in left if not self._is_constrained(row, now)]
        self._check_reports()
        if left and now - self._started_at > _MOVING_S:
            first = ", ".join(self.run.name(row) for row in left[:3])
            self.wrong(f"{len(left)} devices neither run the release nor reported why: {first}")

    def _is_constrained(self, row: int, now: float) -> bool:
        """Whether ``why`` names a constraint, such as a budget that dead devices have used up."""
        return any(WAITS[wait.code].is_limit for wait in self.engine.why_device(row, now).waits)

    def _check_reports(self) -> None:
        """Every idle device that runs the release has reported a confirmation."""
        runs = np.flatnonzero((self.run.serves() == _UNDER_TEST) & self.run.reachable())
        silent = runs[~self._confirmed.has(runs)]
        silent = silent[self.engine.fleet.models.all_phases(silent, MODEL) == IDLE_CODE]
        if len(silent):
            self.wrong(f"{self.named(silent)} runs the release, but the hub has no outcome of it")

    def _is_tried(self, outcome: Outcome) -> bool:
        return outcome.release == self.run.release_under_test
