"""No more devices hold an unconfirmed release than the evidence so far allows."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import ExposureSpec
from edgefleet.rollout.fleet import Rows
from edgefleet.rollout.state import RolloutState
from edgefleet.sim.crowd_view import CrowdView
from edgefleet.sim.row_set import RowSet
from edgefleet.sim.witness import Checker, Tell

_ENDS = frozenset(
    {
        OutcomeKind.CONFIRMED,
        OutcomeKind.TRIAL_FAILED,
        OutcomeKind.REVERTED,
        OutcomeKind.WITHDRAWN,
    }
)


class Exposure(Checker):
    """Counts by itself, from what is durable, and holds each start against the plan's rule."""

    name: ClassVar[str] = "exposure"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._spec: dict[str, ExposureSpec] = {}
        self._trial: dict[str, RowSet] = {}
        self._healthy: dict[str, int] = {}
        self._granted = RowSet()

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if before is None:
            self._spec[after.id] = after.spec.exposure
            self._trial[after.id] = RowSet()
            self._healthy[after.id] = 0

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        trial = self._trial.get(outcome.rollout)
        if trial is None:
            return
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            spec, healthy = self._spec[outcome.rollout], self._healthy[outcome.rollout]
            allowed = max(spec.first, int(spec.growth * healthy))
            self._granted.add(rows)
            trial.add(rows)
            if len(trial) > allowed:
                self.wrong(
                    f"{self.named(rows)} is the {len(trial)}th in trial; {healthy} are healthy "
                    f"and {allowed} are allowed"
                )
        elif outcome.kind in _ENDS:
            trial.discard(rows)
            if outcome.kind is OutcomeKind.CONFIRMED:
                self._healthy[outcome.rollout] += len(rows)

    def activated(self, rows: Rows, release: str, action: str, now: float) -> None:
        tried = action == "install" and release == self.crowd.release_under_test
        if tried and not self._granted.has(rows).all():
            self.wrong(f"{self.named(rows)} activated {release} without a grant")
