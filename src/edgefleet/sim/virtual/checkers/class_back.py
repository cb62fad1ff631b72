"""A class from which the release was taken back starts it no more, and does not keep it."""

from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.classes_back import has_class
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.truth import NEW_NUMBER, RunView


class ClassBack(Checker):
    """Checks every start and offer, and the devices' true state at the end of the run."""

    name: ClassVar[str] = "class_back"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._states: dict[str, RolloutState] = {}  # with a class that was taken back

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if after.taken_back:
            self._states[after.id] = after
        else:
            self._states.pop(after.id, None)

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            self._check(rows, outcome.rollout, "starts")

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        if offer.action == "install":
            self._check(rows, offer.rollout, "is offered")

    def _check(self, rows: Rows, rollout: str, does: str) -> None:
        state = self._states.get(rollout)
        if state is None:
            return
        wrong = rows[has_class(self.engine, rows, state)]
        if len(wrong):
            self.wrong(f"{self.named(wrong)} {does} a release that its class gave back")

    def ended(self, now: float) -> None:
        for state in self._states.values():
            if state.status is not Status.COMPLETED:
                continue
            model = state.spec.model
            serves = (self.run.serves(model) == NEW_NUMBER) & self.run.reachable()
            rows = np.flatnonzero(serves & self.run.has(model))
            left = rows[has_class(self.engine, rows, state)]
            if len(left):
                self.wrong(f"{self.named(left)} keeps a release that its class gave back")
