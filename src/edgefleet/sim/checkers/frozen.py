"""While the fleet is frozen nobody begins."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.columns import Rows
from edgefleet.sim.witness import Checker


class Frozen(Checker):
    """Looks at every start."""

    name: ClassVar[str] = "frozen"

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        freeze = self.engine.freeze
        if outcome.kind is OutcomeKind.TRIAL_STARTED and freeze.frozen:
            self.wrong(f"{self.named(rows)} starts; the fleet is frozen since {freeze.since}")
