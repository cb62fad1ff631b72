"""Waves only grow, and each wave's cut is exact among the devices that are online.

The devices that are held back begin after the bake.
"""

import math
from typing import ClassVar

import numpy as np

from edgefleet.base.ids import mix64
from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.truth import RunView

_EVERYONE = 1 << 64
_RECOUNTED = 20_000  # devices; a larger fleet is not recounted


class Waves(Checker):
    """Recounts each cut from the device hashes and the salt."""

    name: ClassVar[str] = "waves"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._states: dict[str, RolloutState] = {}

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        self._states[after.id] = after
        if before is None or after.wave is None:
            return
        if before.wave is not None and after.wave < before.wave:
            self.wrong(f"wave {after.wave + 1} opened after wave {before.wave + 1}")
        for index, wave in enumerate(before.waves):
            later = after.waves[index]
            if wave.threshold is None or later.threshold is None or wave == later:
                continue
            moved = (wave.threshold, wave.cut, wave.rows) != (
                later.threshold, later.cut, later.rows,
            )  # fmt: skip
            grows = index == before.wave and int(later.threshold, 16) >= int(wave.threshold, 16)
            if moved and not grows:
                self.wrong(f"the cut of wave {index + 1} moved")
            elif moved:
                self._grew(before, after, index)
        opened = [wave.cut or 0 for wave in after.waves[: after.wave + 1]]
        if opened != sorted(opened):
            self.wrong(f"cuts shrink: {opened}")
        wave = after.waves[after.wave]
        if before.wave != after.wave and wave.by_handfuls:
            self._grew(before, after, after.wave)
        elif before.wave != after.wave:
            self._recount(after, now)

    def stored(self, rows: Rows, outcome: Outcome, now: float) -> None:
        """A starting device is in the open wave by its position, not by its enrolment time."""
        state = self._states.get(outcome.rollout)
        if outcome.kind is not OutcomeKind.TRIAL_STARTED or state is None or state.wave is None:
            return
        wave = state.waves[state.wave]
        named = state.spec.selector or any(one.selector for one in state.spec.waves)
        if wave.threshold is None or wave.rows is None or named:
            return
        threshold = int(wave.threshold, 16)
        bake_ended = state.bake is not None and not state.bake.is_open
        if threshold >= _EVERYONE or bake_ended:
            return
        hashes = self.engine.fleet.hashes[rows].tolist()
        beyond = np.array([mix64(value ^ state.salt) >= threshold for value in hashes])
        if state.bake is None:  # newcomers may follow a completed rollout
            beyond |= rows >= wave.rows
        if beyond.any():
            self.wrong(f"{self.named(rows[beyond])} starts beyond wave {state.wave + 1}")

    def _grew(self, before: RolloutState, after: RolloutState, index: int) -> None:
        """A wave takes more devices by itself: never in a pause, never past an approval."""
        if before.status is not Status.RUNNING:
            self.wrong(f"wave {index + 1} grew while the rollout was {before.status}")
        approval = after.spec.approval
        if after.waves[index].by_handfuls and approval.each_wave and approval.people:
            self.wrong(f"wave {index + 1} opened by handfuls past an approval")

    def _recount(self, state: RolloutState, now: float) -> None:
        wave = state.open_wave
        plain = wave is not None and not state.spec.selector and wave.percent
        if wave is None or wave.threshold is None or not plain:
            return
        index = state.wave or 0
        spec = state.spec.waves[index] if index < len(state.spec.waves) else None
        population = len(self.engine.fleet)
        if len(self.run.models) > 1 and self.run.one_model.any():
            return  # an agent with one model is not eligible for another one
        if spec is None or spec.percent is None or spec.selector or population > _RECOUNTED:
            return
        fleet = self.engine.fleet
        rows = np.arange(population)
        online = rows[~fleet.silent_longer(rows, now, fleet.offline_after_s)]
        hashes = fleet.hashes[online]
        if index and wave.threshold == state.waves[index - 1].threshold:
            return  # newcomers below the last cut fill this wave: waves only grow
        threshold = int(wave.threshold, 16)
        inside = sum(mix64(value ^ state.salt) < threshold for value in hashes.tolist())
        if spec.percent >= 100:
            held = _holdback(state, population)
            if wave.cut != population - held:
                self.wrong(
                    f"of {population} devices, {held} are held back; the wave was cut for "
                    f"{wave.cut}"
                )
            return
        wanted = math.ceil(round(spec.percent * len(online) / 100, 9))
        if inside != wanted or wave.planned != wanted:
            self.wrong(
                f"{spec.percent:g} % of {len(online)} online devices are {wanted}; the wave was "
                f"cut for {wave.planned}, {inside} devices are inside"
            )


def _holdback(state: RolloutState, population: int) -> int:
    """The devices that the last wave leaves for the end of the bake."""
    spec = state.spec
    if not spec.bake_s or not spec.holdback_percent or state.previous is None or population < 100:
        return 0
    return max(3, math.ceil(round(spec.holdback_percent * population / 100, 9)))
