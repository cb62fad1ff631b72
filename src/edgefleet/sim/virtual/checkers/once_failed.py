"""A release that a device failed, refused or reverted is never offered to the device again."""

from collections import defaultdict
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Rows, longer
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import RunView

_BAD = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED})
_NEVER = np.zeros(0, np.uint32)
_SWITCHES = 8  # of one device in one rollout: two attempts, a revert, and some slack


class OnceFailed(Checker):
    """Checks every offer, and limits how often a device switches between releases."""

    name: ClassVar[str] = "once_failed"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._bad: defaultdict[tuple[str, str], RowSet] = defaultdict(RowSet)  # model, release
        self._switches: dict[str, npt.NDArray[np.uint32]] = {}  # by model

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if outcome.kind in _BAD:
            self._bad[self.run.model_of(outcome.rollout), outcome.release].add(rows)

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        if offer.action != "install":
            return
        again = rows[self._bad[offer.model, offer.release].has(rows)]
        if len(again):
            self.wrong(f"{self.named(again)} is offered {offer.model} {offer.release} again")

    def activated(self, rows: Rows, model: str, release: str, action: str, now: float) -> None:
        if action == "install":
            switches = self._switches.get(model, _NEVER)
            if rows[-1] >= len(switches):
                switches = longer(switches, 2 * int(rows[-1]) + 1)
            self._switches[model] = switches
            switches[rows] += 1
            often = rows[switches[rows] == _SWITCHES]
            if len(often):
                name = self.named(often)
                self.wrong(f"{name} switched between releases of {model} {_SWITCHES} times")
