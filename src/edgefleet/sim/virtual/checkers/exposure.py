"""The number of devices in trial never exceeds the exposure rule of the plan.

A device counts from its durable start, and activates the release only after it.
"""

from collections import defaultdict
from typing import ClassVar

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import ExposureSpec
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import TRIAL_ENDS, Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import UNDER_TEST, RunView


class Exposure(Checker):
    """Counts from durable outcomes and compares each start with the plan's rule."""

    name: ClassVar[str] = "exposure"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._spec: dict[str, ExposureSpec] = {}
        self._trial: dict[str, RowSet] = {}
        self._healthy: dict[str, int] = {}
        self._started: defaultdict[str, RowSet] = defaultdict(RowSet)  # by model

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if before is None:
            self._spec[after.id] = after.spec.exposure
            self._trial[after.id] = RowSet()
            self._healthy[after.id] = 0

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        trial = self._trial.get(outcome.rollout)
        if trial is None:
            return
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            self._started[self.run.model_of(outcome.rollout)].add(rows)
            self._begin(rows, outcome.rollout)
        elif outcome.kind in TRIAL_ENDS:
            trial.discard(rows)
            if outcome.kind is OutcomeKind.CONFIRMED:
                self._healthy[outcome.rollout] += len(rows)

    def activated(self, rows: Rows, model: str, release: str, action: str, now: float) -> None:
        tried = action == "install" and release == UNDER_TEST
        if tried and not self._started[model].has(rows).all():
            self.wrong(f"{self.named(rows)} activated {model} {release} without a durable start")

    def _begin(self, rows: Rows, rollout: str) -> None:
        trial, spec, healthy = self._trial[rollout], self._spec[rollout], self._healthy[rollout]
        allowed = max(spec.first, int(spec.growth * healthy))
        trial.add(rows)
        if len(trial) > allowed:
            self.wrong(
                f"{self.named(rows)} starts: {len(trial)} devices in trial; {healthy} are healthy "
                f"and {allowed} are allowed"
            )
