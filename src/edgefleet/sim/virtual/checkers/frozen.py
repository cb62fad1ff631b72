"""While the fleet is frozen nobody is given leave to begin."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.checkers.grants_seen import Leaves
from edgefleet.sim.virtual.observer import Checker, Tell
from edgefleet.sim.virtual.truth import CrowdView


class Frozen(Checker):
    """Looks at every leave."""

    name: ClassVar[str] = "frozen"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._leaves = Leaves()

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        freeze, asked = self.engine.freeze, self._leaves.given(rows, outcome)
        if len(asked) and freeze.frozen:
            self.wrong(f"{self.named(asked)} may start; the fleet is frozen since {freeze.since}")
