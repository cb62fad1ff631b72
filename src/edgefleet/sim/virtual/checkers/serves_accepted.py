"""No device activates a release that it refused, and finally every reachable device serves one."""

from collections import defaultdict
from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import RunView

_UNDER_TEST = 2  # the number of the release in ``serves``


class Valid(Checker):
    """Checks every activation, and at the end what each device serves."""

    name: ClassVar[str] = "valid"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._refused: defaultdict[str, RowSet] = defaultdict(RowSet)
        self._failed = RowSet()  # any release
        self._failed_it = RowSet()  # the release under test
        self._had_one = RowSet()  # devices with a release to revert to

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if before is None:  # at planning time, before any newcomer
            self._had_one.add(np.arange(len(self.engine.fleet)))

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        if outcome.kind is OutcomeKind.REFUSED:
            self._refused[outcome.release].add(rows)
        elif outcome.kind is OutcomeKind.TRIAL_FAILED:
            self._failed.add(rows)
            if outcome.release == self.run.release_under_test:
                self._failed_it.add(rows)
        elif outcome.kind is OutcomeKind.CONFIRMED:
            self._had_one.add(rows)

    def activated(self, rows: Rows, release: str, action: str, now: float) -> None:
        refused = rows[self._refused[release].has(rows)]
        if len(refused) and action == "install":  # a refused revert is tried again
            self.wrong(f"{self.named(refused)} activated {release}, which it had refused")

    def ended(self, now: float) -> None:
        serves, reachable = self.run.serves(), self.run.reachable()
        serving = np.flatnonzero(reachable & (serves == _UNDER_TEST))
        kept = serving[self._failed_it.has(serving)]
        if len(kept):
            self.wrong(f"{self.named(kept)} still serves the release, whose trial failed there")
        dark = np.flatnonzero((serves == 0) & reachable)
        dark = dark[
            self._had_one.has(dark) | ~self._failed.has(dark)
        ]  # a device's first release may fail
        if len(dark):
            first = ", ".join(self.run.name(row) for row in dark[:3].tolist())
            self.wrong(f"{len(dark)} devices serve no release: {first}")
