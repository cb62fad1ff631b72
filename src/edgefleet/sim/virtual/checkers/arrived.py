"""After a completed rollout every reachable device runs the release, or has reported why not."""

from collections import defaultdict
from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.why import WAITS, WaitCode
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.reports import IDLE_CODE
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import BAD, Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import NEW_NUMBER, UNDER_TEST, RunView

_MOVING_S = 600.0  # without any start: the rollout is stuck


class Arrived(Checker):
    """Compares the devices' true state with their reports."""

    name: ClassVar[str] = "arrived"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._excused: defaultdict[str, RowSet] = defaultdict(RowSet)  # by model
        self._confirmed: defaultdict[str, RowSet] = defaultdict(RowSet)
        self._enrolled: dict[str, int] = {}
        self._started_at = 0.0  # the last start of any device

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if after.status is Status.COMPLETED and after.rows_at_end is not None:
            self._enrolled[after.spec.model] = after.rows_at_end

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            self._started_at = now
        elif outcome.kind in BAD:
            self._excused[self.run.model_of(outcome.rollout)].add(rows)
        elif outcome.kind is OutcomeKind.CONFIRMED and outcome.release == UNDER_TEST:
            self._confirmed[self.run.model_of(outcome.rollout)].add(rows)

    def ended(self, now: float) -> None:
        for state in self.engine.states():
            model = state.spec.model
            if state.id == self.run.rollouts.get(model) and state.status is Status.COMPLETED:
                self._check_devices(model, self._chosen(state), now)
                self._check_reports(model)

    def _check_devices(self, model: str, chosen: Mask, now: float) -> None:
        missing = (self.run.serves(model) != NEW_NUMBER) & self.run.reachable() & chosen
        rows = np.flatnonzero(missing[: self._enrolled[model]])
        left = rows[~self._excused[model].has(rows)].tolist()
        active = self.engine.rollout(self.run.rollouts[model])
        if active.holds_late:  # a person is asked: the last devices that started fail
            return
        taken_back = active.takes_back_part
        left = [row for row in left if not taken_back(row) and not self._is_constrained(row, now)]
        if left and now - self._started_at > _MOVING_S:
            first = ", ".join(self.run.name(row) for row in left[:3])
            self.wrong(
                f"{len(left)} devices neither run the release of {model} nor reported why: {first}"
            )

    def _chosen(self, state: RolloutState) -> Mask:
        """The devices that the plan selects, without agents that have another model only."""
        has = self.run.has(state.spec.model)
        return has if state.spec.selector else has | ~self.run.one_model

    def _is_constrained(self, row: int, now: float) -> bool:
        """Whether ``why`` names a constraint, such as a budget that dead devices have used up.

        An alert after the last wave holds devices back until it clears or a person acts.
        """
        codes = {wait.code for wait in self.engine.why_device(row, now).waits}
        return any(WAITS[code].is_limit for code in codes) or WaitCode.HOLDBACK in codes

    def _check_reports(self, model: str) -> None:
        """Every idle device that runs the release has reported a confirmation."""
        runs = np.flatnonzero((self.run.serves(model) == NEW_NUMBER) & self.run.reachable())
        silent = runs[~self._confirmed[model].has(runs)]
        silent = silent[self.engine.fleet.models.all_phases(silent, model) == IDLE_CODE]
        if len(silent):
            self.wrong(f"{self.named(silent)} runs the release, but the hub has no outcome of it")
