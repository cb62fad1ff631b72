"""A rollout that is not running exposes nobody new, and a failed release is never offered again.

Who starts by itself is held to that by its offer: it may say later that it began.
"""

from collections import defaultdict
from typing import ClassVar

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.columns import Rows
from edgefleet.rollout.state import RolloutState
from edgefleet.sim.crowd_view import CrowdView
from edgefleet.sim.row_set import RowSet
from edgefleet.sim.witness import Checker, Tell

_EXPOSING = frozenset({Status.RUNNING, Status.COMPLETED})


class Halted(Checker):
    """Looks at every offer and every start."""

    name: ClassVar[str] = "halted"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._status: dict[str, Status] = {}
        self._took: defaultdict[str, RowSet] = defaultdict(RowSet)
        self._by_offer: defaultdict[str, RowSet] = defaultdict(RowSet)

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        self._status[after.id] = after.status

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if outcome.kind not in (OutcomeKind.TRIAL_STARTED, OutcomeKind.OFFERED):
            return
        status = self._status.get(outcome.rollout, Status.COMPLETED)
        by_offer = self._by_offer[outcome.rollout]
        offered = outcome.kind is OutcomeKind.OFFERED
        asked = rows if offered else rows[~by_offer.has(rows)]
        if len(asked) and status not in _EXPOSING:
            self.wrong(f"{self.named(asked)} may start in a rollout that is {status}")
        (by_offer if offered else self._took[outcome.rollout]).add(rows)

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        status = self._status.get(offer.rollout, Status.COMPLETED)
        if offer.action != "install" or status in _EXPOSING:
            return
        new = rows[~self._took[offer.rollout].has(rows)]
        if len(new):
            self.wrong(f"{self.named(new)} is offered a rollout that is {status}")
