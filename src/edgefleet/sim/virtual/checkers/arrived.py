"""After the end of a rollout that completed, reachable devices run it, or said why they do not."""

from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.reports import IDLE_CODE
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker, Tell
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import CrowdView

_BAD = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED})
_PLANNED = frozenset({WaitCode.BUDGET, WaitCode.WINDOW, WaitCode.PACE})
_MOVING_S = 600.0  # without any start: then it is stuck, and not on its way
_UNDER_TEST = 2  # its number in ``serves``


class Arrived(Checker):
    """The truth of the devices against what they reported."""

    name: ClassVar[str] = "arrived"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
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
            if state.spec.release == self.crowd.release_under_test
        ]
        if [state.status for state in states] != [Status.COMPLETED]:
            return
        missing = (self.crowd.serves() != _UNDER_TEST) & self.crowd.reachable()
        rows = np.flatnonzero(missing[: self._enrolled])
        left = rows[~self._excused.has(rows)].tolist()
        left = [row for row in left if not self._is_held_back(row, now)]
        self._silent_ones()
        if left and now - self._started_at > _MOVING_S:
            first = ", ".join(self.crowd.name(row) for row in left[:3])
            self.wrong(f"{len(left)} devices do not run it and never said why: {first}")

    def _is_held_back(self, row: int, now: float) -> bool:
        """The plan makes it wait, as when dead devices use a budget up, and ``why`` says so."""
        return any(wait.code in _PLANNED for wait in self.engine.why_device(row, now).waits)

    def _silent_ones(self) -> None:
        """Who runs it has said that it confirmed it, or is still trying it."""
        runs = np.flatnonzero((self.crowd.serves() == _UNDER_TEST) & self.crowd.reachable())
        unheard = runs[~self._confirmed.has(runs)]
        unheard = unheard[self.engine.fleet.phases[unheard] == IDLE_CODE]
        if len(unheard):
            self.wrong(f"{self.named(unheard)} runs it, and the hub never heard how it went")

    def _is_tried(self, outcome: Outcome) -> bool:
        return outcome.release == self.crowd.release_under_test
