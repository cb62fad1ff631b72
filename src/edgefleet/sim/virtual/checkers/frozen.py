"""No device starts while the fleet is frozen."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.observer import Checker


class Frozen(Checker):
    """Checks every start."""

    name: ClassVar[str] = "frozen"

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        freeze = self.engine.freeze
        if outcome.kind is OutcomeKind.TRIAL_STARTED and freeze.frozen:
            self.wrong(f"{self.named(rows)} may start; the fleet is frozen since {freeze.since}")
