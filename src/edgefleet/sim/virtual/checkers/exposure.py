"""The number of devices in trial never exceeds the exposure rule of the plan.

A device counts from its durable start, and activates the release only after it. The rule counts the
devices that began since the last pause without a start and without a new wave: the healthy ones for
the limit, those in trial against it.
"""

from collections import defaultdict
from typing import ClassVar

import numpy as np

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.classes_back import has_class
from edgefleet.sim.virtual.observer import TRIAL_ENDS, Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import UNDER_TEST, RunView

_SLACK_S = 0.2  # the engine orders starts by tenths of a second


class _Rollout:
    """The starts and confirmations of one rollout."""

    def __init__(self, spec: RolloutSpec) -> None:
        self.spec = spec
        self.devices = 0
        self.trial = RowSet()  # of the devices that began since the last pause
        self.started = RowSet()  # since the last pause
        self.healthy = 0  # of these
        self.all_healthy = 0
        self.last = -np.inf  # time of the last start
        self.opened = -np.inf  # time at which the last wave opened

    def begin(self, rows: Rows, now: float) -> None:
        gate = self.spec.gate
        pause_s = gate.confirm_after_s + gate.silence_s
        paused_s = now - max(self.last, self.opened) if np.isfinite(self.last) else 0.0
        if paused_s > pause_s - _SLACK_S:
            self.trial = RowSet()
        if paused_s > pause_s + _SLACK_S:
            self.started, self.healthy = RowSet(), 0
        self.last = now
        self.started.add(rows)
        self.trial.add(rows)

    def end(self, rows: Rows, kind: OutcomeKind) -> None:
        self.trial.discard(rows)
        if kind is OutcomeKind.CONFIRMED:
            self.all_healthy += len(rows)
            self.healthy += int(self.started.has(rows).sum())
        elif kind is OutcomeKind.WITHDRAWN:  # perhaps the pause has no start after it any more
            self.healthy = self.all_healthy

    @property
    def allowed(self) -> int:
        spec = self.spec.exposure
        most = max(spec.first, int(spec.ceiling * self.devices))
        return min(most, max(spec.first, int(spec.growth * self.healthy)))


class Exposure(Checker):
    """Counts from durable outcomes and compares each start with the plan's rule."""

    name: ClassVar[str] = "exposure"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._rollouts: dict[str, _Rollout] = {}
        self._started: defaultdict[str, RowSet] = defaultdict(RowSet)  # by model

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        if before is None:
            self._rollouts[after.id] = _Rollout(after.spec)
        opened = [wave.opened_at for wave in after.waves if wave.opened_at is not None]
        self._rollouts[after.id].opened = max(opened, default=-np.inf)
        self._rollouts[after.id].devices = after.waves[0].population or 0
        if before is not None and before.taken_back != after.taken_back:
            every = np.arange(len(self.engine.fleet))
            self._rollouts[after.id].trial.discard(every[has_class(self.engine, every, after)])

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        found = self._rollouts.get(outcome.rollout)
        if found is None:
            return
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            self._started[self.run.model_of(outcome.rollout)].add(rows)
            found.begin(rows, now)
            if len(found.trial) > found.allowed:
                self.wrong(
                    f"{self.named(rows)} starts: {len(found.trial)} devices in trial; "
                    f"{found.healthy} are healthy and {found.allowed} are allowed"
                )
        elif outcome.kind in TRIAL_ENDS:
            found.end(rows, outcome.kind)

    def activated(self, rows: Rows, model: str, release: str, action: str, now: float) -> None:
        tried = action == "install" and release == UNDER_TEST
        if tried and not self._started[model].has(rows).all():
            self.wrong(f"{self.named(rows)} activated {model} {release} without a durable start")
