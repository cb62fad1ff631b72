"""What a device failed, refused or gave back is never offered to it again: nobody oscillates."""

from collections import defaultdict
from typing import ClassVar

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.sim.crowd_view import CrowdView
from edgefleet.sim.row_set import RowSet
from edgefleet.sim.witness import Checker, Tell

_BAD = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED})
_SWITCHES = 8  # between releases, of one device, in one rollout: two tries, a return, and slack


class OnceFailed(Checker):
    """Looks at every offer and at every switch of a device."""

    name: ClassVar[str] = "once_failed"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._bad: defaultdict[str, RowSet] = defaultdict(RowSet)
        self._switches = bytearray()

    def stored(self, row: int, outcome: Outcome, now: float) -> None:
        if outcome.kind in _BAD:
            self._bad[outcome.release].add(row)

    def offered(self, row: int, offer: Offer, now: float) -> None:
        if offer.action == "install" and row in self._bad[offer.release]:
            self.wrong(f"{self.crowd.name(row)} is offered {offer.release} again")

    def activated(self, row: int, release: str, action: str, now: float) -> None:
        if action == "install":
            if row >= len(self._switches):
                self._switches.extend(bytes(2 * row + 1 - len(self._switches)))
            self._switches[row] = min(255, self._switches[row] + 1)
            if self._switches[row] == _SWITCHES:
                self.wrong(f"{self.crowd.name(row)} switched {_SWITCHES} times")
