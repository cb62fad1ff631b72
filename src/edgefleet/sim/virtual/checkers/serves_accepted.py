"""No device activates a release that it refused, and finally every reachable device serves one."""

from collections import defaultdict
from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import NEW_NUMBER, NOTHING, UNDER_TEST, RunView


class Valid(Checker):
    """Checks every activation, and at the end what each device serves."""

    name: ClassVar[str] = "valid"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._refused: defaultdict[tuple[str, str], RowSet] = defaultdict(RowSet)  # model, release
        self._failed: defaultdict[str, RowSet] = defaultdict(RowSet)  # by model, any release
        self._failed_it: defaultdict[str, RowSet] = defaultdict(RowSet)  # the release under test
        self._had_one: defaultdict[str, RowSet] = defaultdict(RowSet)  # a release to revert to

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if before is None:  # at planning time, before any newcomer
            model = after.spec.model
            had = np.flatnonzero(self.run.has(model)).astype(np.int64)
            self._had_one[model].add(had[self.run.serves(model)[had] > 0])

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        model = self.run.model_of(outcome.rollout)
        if outcome.kind is OutcomeKind.REFUSED:
            self._refused[model, outcome.release].add(rows)
        elif outcome.kind is OutcomeKind.TRIAL_FAILED:
            self._failed[model].add(rows)
            if outcome.release == UNDER_TEST:
                self._failed_it[model].add(rows)
        elif outcome.kind is OutcomeKind.CONFIRMED:
            self._had_one[model].add(rows)

    def activated(self, rows: Rows, model: str, release: str, action: str, now: float) -> None:
        refused = rows[self._refused[model, release].has(rows)]
        if len(refused) and action == "install":  # a refused revert is tried again
            name = self.named(refused)
            self.wrong(f"{name} activated {model} {release}, which it had refused")

    def ended(self, now: float) -> None:
        reachable = self.run.reachable()
        for model in self.run.models:
            self._check(model, reachable)

    def _check(self, model: str, reachable: Mask) -> None:
        serves = self.run.serves(model)
        serving = np.flatnonzero(reachable & (serves == NEW_NUMBER))
        kept = serving[self._failed_it[model].has(serving)]
        if len(kept):
            name = self.named(kept)
            self.wrong(f"{name} still serves the release of {model}, whose trial failed there")
        dark = np.flatnonzero((serves == NOTHING) & reachable)
        should = self.run.has(model)[dark] & ~self._failed[model].has(dark)
        dark = dark[self._had_one[model].has(dark) | should]  # a first release may fail
        if len(dark):
            first = ", ".join(self.run.name(row) for row in dark[:3].tolist())
            self.wrong(f"{len(dark)} devices serve no release of {model}: {first}")
