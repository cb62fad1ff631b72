"""After a revert no reachable device runs the release."""

from collections import defaultdict
from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.rollout.lifecycle.step import returned_by
from edgefleet.sim.virtual.observer import BAD, Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.scenario import OLD
from edgefleet.sim.virtual.truth import NEW_NUMBER, RunView


class WentBack(Checker):
    """Checks the devices' true state when the rollout is reverted, and at the end of the run."""

    name: ClassVar[str] = "went_back"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._without: defaultdict[str, RowSet] = defaultdict(RowSet)  # by model

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        """A device on which the earlier release failed has none to go back to."""
        if outcome.kind in BAD and outcome.release == OLD:
            self._without[self.run.model_of(outcome.rollout)].add(rows)

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        """A revert does not end while an online device reports that it runs the release."""
        if after.status is not Status.REVERTED or before is None:
            return
        if now >= returned_by(before):
            return  # after its patience a revert ends with devices left; its text has their number
        running = self._left(after.spec.model)
        fleet = self.engine.fleet
        number = fleet.models.release_id(after.spec.model, after.spec.release)
        for row in running.tolist():
            if fleet.online(row, now) and number in fleet.numbers(row):
                name = self.run.name(row)
                self.wrong(f"{after.id} is reverted, but {name} reports that it runs the release")
                return

    def ended(self, now: float) -> None:
        for state in self.engine.states():
            model = state.spec.model
            undone = state.status in (Status.REVERTED, Status.REFUSED)
            if state.id != self.run.rollouts.get(model) or not undone:
                continue
            left = self._left(model)
            if len(left):
                first = ", ".join(self.run.name(row) for row in left[:3].tolist())
                self.wrong(f"{len(left)} devices still run the release of {model}: {first}")

    def _left(self, model: str) -> Rows:
        """Reachable devices that serve the release, and have an earlier one to go back to."""
        serves_it = self.run.serves(model) == NEW_NUMBER
        rows = np.flatnonzero(serves_it & self.run.reachable() & self.run.has(model))
        return rows[~self._without[model].has(rows)]
