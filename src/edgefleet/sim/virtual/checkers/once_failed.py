"""A release that a device failed, refused or reverted is never offered to the device again."""

from collections import defaultdict
from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Rows, longer
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import RunView

_BAD = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED})
_SWITCHES = 8  # of one device in one rollout: two attempts, a revert, and some slack


class OnceFailed(Checker):
    """Checks every offer, and limits how often a device switches between releases."""

    name: ClassVar[str] = "once_failed"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._bad: defaultdict[str, RowSet] = defaultdict(RowSet)
        self._switches = np.zeros(0, np.uint32)

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if outcome.kind in _BAD:
            self._bad[outcome.release].add(rows)

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        if offer.action != "install":
            return
        again = rows[self._bad[offer.release].has(rows)]
        if len(again):
            self.wrong(f"{self.named(again)} is offered {offer.release} again")

    def activated(self, rows: Rows, release: str, action: str, now: float) -> None:
        if action == "install":
            if rows[-1] >= len(self._switches):
                self._switches = longer(self._switches, 2 * int(rows[-1]) + 1)
            self._switches[rows] += 1
            often = rows[self._switches[rows] == _SWITCHES]
            if len(often):
                self.wrong(f"{self.named(often)} switched between releases {_SWITCHES} times")
