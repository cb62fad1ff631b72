"""What a device failed, refused or gave back is never offered to it again: nobody oscillates."""

from typing import ClassVar

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.sim.crowd_view import CrowdView
from edgefleet.sim.witness import Checker, Tell

_BAD = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED})
_SWITCHES = 8  # between releases, of one device, in one rollout: two tries, a return, and slack


class OnceFailed(Checker):
    """Looks at every offer and at every switch of a device."""

    name: ClassVar[str] = "once_failed"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._bad: set[tuple[int, str]] = set()
        self._switches: dict[int, int] = {}

    def stored(self, row: int, outcome: Outcome, now: float) -> None:
        if outcome.kind in _BAD:
            self._bad.add((row, outcome.release))

    def offered(self, row: int, offer: Offer, now: float) -> None:
        if offer.action == "install" and (row, offer.release) in self._bad:
            self.wrong(f"{self.crowd.name(row)} is offered {offer.release} again")

    def activated(self, row: int, release: str, action: str, now: float) -> None:
        if action == "install":
            count = self._switches[row] = self._switches.get(row, 0) + 1
            if count == _SWITCHES:
                self.wrong(f"{self.crowd.name(row)} switched {count} times")
