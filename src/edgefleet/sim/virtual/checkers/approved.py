"""No device starts before the number of approvals that the plan requires."""

from typing import ClassVar

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.truth import RunView


class Approved(Checker):
    """Counts the approvals of the rollout, or of the open wave, independently of the engine."""

    name: ClassVar[str] = "approved"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._missing: dict[str, int] = {}

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        required = after.spec.approval
        wave = after.wave if required.each_wave else 0
        agreed = {given.person for given in after.approvals if given.wave == wave}
        self._missing[after.id] = required.people - len(agreed)

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        missing = self._missing.get(outcome.rollout, 0)
        if outcome.kind is OutcomeKind.TRIAL_STARTED and missing > 0:
            self.wrong(f"{self.named(rows)} may start; {missing} approvals are missing")
