"""Nobody may begin before as many people agreed as the plan asks for."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.checkers.grants_seen import Leaves
from edgefleet.sim.virtual.observer import Checker, Tell
from edgefleet.sim.virtual.truth import CrowdView


class Approved(Checker):
    """Counts by itself who agreed with the rollout, or with the wave that is open."""

    name: ClassVar[str] = "approved"

    def __init__(self, crowd: CrowdView, tell: Tell) -> None:
        super().__init__(crowd, tell)
        self._missing: dict[str, int] = {}
        self._leaves = Leaves()

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        asked = after.spec.approval
        wave = after.wave if asked.each_wave else 0
        agreed = {given.person for given in after.approvals if given.wave == wave}
        self._missing[after.id] = asked.people - len(agreed)

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        missing, asked = self._missing.get(outcome.rollout, 0), self._leaves.given(rows, outcome)
        if len(asked) and missing > 0:
            self.wrong(f"{self.named(asked)} may start; {missing} people have not agreed")
