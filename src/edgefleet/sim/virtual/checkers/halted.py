"""A rollout that is not running exposes no new device."""

from collections import defaultdict
from typing import ClassVar

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import RunView

_EXPOSING = frozenset({Status.RUNNING, Status.COMPLETED})


class Halted(Checker):
    """Checks every offer and every start."""

    name: ClassVar[str] = "halted"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._status: dict[str, Status] = {}
        self._took: defaultdict[str, RowSet] = defaultdict(RowSet)

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        self._status[after.id] = after.status

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if outcome.kind is not OutcomeKind.TRIAL_STARTED:
            return
        status = self._status.get(outcome.rollout, Status.COMPLETED)
        if status not in _EXPOSING:
            self.wrong(f"{self.named(rows)} may start in a rollout that is {status}")
        self._took[outcome.rollout].add(rows)

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        status = self._status.get(offer.rollout, Status.COMPLETED)
        if offer.action != "install" or status in _EXPOSING:
            return
        new = rows[~self._took[offer.rollout].has(rows)]
        if len(new):
            self.wrong(f"{self.named(new)} is offered a rollout that is {status}")
