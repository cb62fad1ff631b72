"""After the end of a rollout that completed, reachable devices run it, or said why they do not."""

from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.state import RolloutState
from edgefleet.sim.crowd_view import CrowdView
from edgefleet.sim.witness import Checker, Tell

_BAD = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED})
_UNDER_TEST = 2  # its number in ``serves``


class Arrived(Checker):
    """The truth of the devices against what they reported."""

    name: ClassVar[str] = "arrived"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._excused: set[int] = set()
        self._enrolled = 0

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if after.status is Status.COMPLETED:
            self._enrolled = len(self.engine.fleet)

    def stored(self, row: int, outcome: Outcome, now: float) -> None:
        if outcome.kind in _BAD:
            self._excused.add(row)

    def ended(self, now: float) -> None:
        states = [
            state
            for state in self.engine.states()
            if state.spec.release == self.crowd.release_under_test
        ]
        if [state.status for state in states] != [Status.COMPLETED]:
            return
        missing = (self.crowd.serves() != _UNDER_TEST) & self.crowd.reachable()
        rows = np.flatnonzero(missing)[: self._enrolled]
        left = [row for row in rows.tolist() if row < self._enrolled and row not in self._excused]
        if left:
            first = ", ".join(self.crowd.name(row) for row in left[:3])
            self.wrong(f"{len(left)} devices do not run it and never said why: {first}")
