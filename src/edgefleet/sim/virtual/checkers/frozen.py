"""No device gets a grant while the fleet is frozen."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.checkers.grants_seen import ObservedGrants
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.truth import RunView


class Frozen(Checker):
    """Checks every grant."""

    name: ClassVar[str] = "frozen"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._grants = ObservedGrants()

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        freeze, granted = self.engine.freeze, self._grants.granted(rows, outcome)
        if len(granted) and freeze.frozen:
            text = f"{self.named(granted)} may start; the fleet is frozen since {freeze.since}"
            self.wrong(text)
