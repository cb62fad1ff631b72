"""Waves only grow, and each wave's cut has the exact number of devices.

The devices that are held back begin after the bake.
"""

import math
from typing import ClassVar

import numpy as np

from edgefleet.base.ids import mix64
from edgefleet.protocol.device import Outcome, OutcomeKind
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
            if wave.threshold is not None and (wave.threshold, wave.cut, wave.rows) != (
                later.threshold, later.cut, later.rows,
            ):  # fmt: skip
                self.wrong(f"the cut of wave {index + 1} moved")
        opened = [wave.cut or 0 for wave in after.waves[: after.wave + 1]]
        if opened != sorted(opened):
            self.wrong(f"cuts shrink: {opened}")
        if before.wave != after.wave:
            self._recount(after)

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

    def _recount(self, state: RolloutState) -> None:
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
        hashes = self.engine.fleet.hashes
        if index and wave.threshold == state.waves[index - 1].threshold:
            return  # newcomers below the last cut fill this wave: waves only grow
        threshold = int(wave.threshold, 16)
        inside = sum(mix64(value ^ state.salt) < threshold for value in hashes.tolist())
        wanted = math.ceil(round(spec.percent * population / 100, 9))
        if spec.percent >= 100:
            wanted -= _holdback(state, population)
        if inside != wanted or wave.cut != wanted:
            self.wrong(
                f"{spec.percent:g} % of {population} are {wanted} devices; the cut is {wave.cut}, "
                f"{inside} devices are inside"
            )


def _holdback(state: RolloutState, population: int) -> int:
    """The devices that the last wave leaves for the end of the bake."""
    spec = state.spec
    if not spec.bake_s or not spec.holdback_percent or state.previous is None or population < 100:
        return 0
    return max(3, math.ceil(round(spec.holdback_percent * population / 100, 9)))
