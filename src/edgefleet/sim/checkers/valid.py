"""A device serves a valid release whenever it can: in the end, every one that is on does."""

from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.sim.crowd_view import CrowdView
from edgefleet.sim.witness import Checker, Tell


class Valid(Checker):
    """Nobody activates what it refused, and in the end nobody is left without a release."""

    name: ClassVar[str] = "valid"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._refused: set[tuple[int, str]] = set()

    def stored(self, row: int, outcome: Outcome, now: float) -> None:
        if outcome.kind is OutcomeKind.REFUSED:
            self._refused.add((row, outcome.release))

    def activated(self, row: int, release: str, action: str, now: float) -> None:
        if (row, release) in self._refused and action != "restore":
            self.wrong(f"{self.crowd.name(row)} activated {release}, which it had refused")

    def ended(self, now: float) -> None:
        dark = np.flatnonzero((self.crowd.serves() == 0) & self.crowd.reachable())
        if len(dark):
            first = ", ".join(self.crowd.name(row) for row in dark[:3].tolist())
            self.wrong(f"{len(dark)} devices serve nothing: {first}")
