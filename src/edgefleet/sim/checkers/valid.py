"""A device serves a valid release whenever it can: in the end, every one that is on does."""

from collections import defaultdict
from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.sim.crowd_view import CrowdView
from edgefleet.sim.row_set import RowSet
from edgefleet.sim.witness import Checker, Tell

_UNDER_TEST = 2  # its number in ``serves``


class Valid(Checker):
    """Nobody activates what it refused, and in the end nobody is left without a release."""

    name: ClassVar[str] = "valid"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._refused: defaultdict[str, RowSet] = defaultdict(RowSet)
        self._failed: set[int] = set()

    def stored(self, row: int, outcome: Outcome, now: float) -> None:
        if outcome.kind is OutcomeKind.REFUSED:
            self._refused[outcome.release].add(row)
        elif outcome.kind is OutcomeKind.TRIAL_FAILED:
            self._failed.add(row)

    def activated(self, row: int, release: str, action: str, now: float) -> None:
        if row in self._refused[release] and action != "restore":
            self.wrong(f"{self.crowd.name(row)} activated {release}, which it had refused")

    def ended(self, now: float) -> None:
        serves, reachable = self.crowd.serves(), self.crowd.reachable()
        kept = [row for row in self._failed if reachable[row] and serves[row] == _UNDER_TEST]
        if kept:
            self.wrong(
                f"{len(kept)} devices still serve what failed there: {self.crowd.name(kept[0])}"
            )
        dark = np.flatnonzero((self.crowd.serves() == 0) & self.crowd.reachable())
        if len(dark):
            first = ", ".join(self.crowd.name(row) for row in dark[:3].tolist())
            self.wrong(f"{len(dark)} devices serve nothing: {first}")
