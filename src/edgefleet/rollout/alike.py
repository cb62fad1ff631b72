"""Many devices that say the same at the same moment, taken together: in columns, not one by one.

Each function means what its namesake of ``Engine`` means for the devices one after the other, in
the order of their rows; where a plan asks of each device something of its own, they are taken so.
The simulator takes a million devices through a rollout with it.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind, Telemetry
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.fleet import Fleet, Mask, Rows
from edgefleet.rollout.grants import Grants
from edgefleet.rollout.leave import Leave
from edgefleet.rollout.ledger import WENT_BACK, Standing
from edgefleet.rollout.state import JUDGED
from edgefleet.rollout.track import Track

Standings = npt.NDArray[np.uint8]
Parted = tuple[tuple[Offer | None, Rows], ...]
"""Who is told what: no row twice, each part ascending."""

_WENT_BACK = [int(standing) for standing in WENT_BACK]


class Alike:
    """The engine's answers to groups of devices. ``rows`` always ascend and are never empty."""

    def __init__(
        self,
        fleet: Fleet,
        tracks: Mapping[str, Track],
        desired: Desired,
        leave: Leave,
        grants: Grants,
    ) -> None:
        self._fleet = fleet
        self._tracks = tracks
        self._desired = desired
        self._leave = leave
        self._grants = grants

    def admit(self, rows: Rows, outcome: Outcome, now: float) -> Mask:
        """Who may start now; see ``Engine.admit``. The lowest rows come first."""
        track = self._tracks.get(outcome.rollout)
        if track is None:
            return np.zeros(len(rows), np.bool_)
        return self._leave.admit_all(track, rows, outcome, now)

    def record(self, rows: Rows, outcome: Outcome, at: float | None = None) -> int:
        """Count an outcome that is durable for all of ``rows``; how many said something new."""
        track = self._tracks.get(outcome.rollout)
        if track is None:
            return 0
        if outcome.kind is not OutcomeKind.REVERTED and outcome.release != track.state.spec.release:
            return 0
        if outcome.kind is OutcomeKind.OFFERED:
            return sum(self._grants.record(track, row, outcome.at) for row in rows.tolist())
        if outcome.kind is OutcomeKind.DEFERRED:
            for row in rows.tolist():
                track.admission.put_off(row, outcome.at if at is None else at)
        before = track.ledger.standings(rows)
        new = track.ledger.record_all(rows, outcome, track.waves_of(rows))
        rows, before = rows[new], before[new]
        if not len(rows):
            return 0
        after = track.ledger.standings(rows)
        if outcome.kind is OutcomeKind.CONFIRMED:
            track.cohorts.confirmed(outcome, track.state.spec.gate, times=len(rows))
        if outcome.kind is OutcomeKind.TRIAL_STARTED:
            for row in rows.tolist():
                track.admission.began(row, at)
            if at is not None:
                track.moved(int(rows[0]), at)
        if self._grants.given:
            for row in rows[after > Standing.DEFERRED].tolist():
                self._grants.settle(track, row)
        self._budget(track, rows, before, after)
        went_back = np.isin(after, _WENT_BACK) & ~np.isin(before, _WENT_BACK)
        for row in rows[went_back].tolist():
            self._leave.setbacks.add(track.state.spec.model, row)
        return len(rows)

    def telemetry(self, rows: Rows, telemetry: Telemetry, now: float) -> None:
        """Add the same serving figures of each; see ``Engine.telemetry``."""
        for track in self._tracks.values():
            state = track.state
            started = state.started_at is not None and state.started_at <= now
            if state.status not in JUDGED or not started:
                continue
            heard = rows[track.scope.all_eligible(rows) & self._runs_model(rows, state.spec.model)]
            took = track.ledger.standings(heard) != Standing.NONE
            if telemetry.release == state.spec.release:
                self._hear_canaries(track, heard[took], telemetry)
            elif telemetry.release == state.previous and not took.all():
                track.cohorts.hear_controls(heard[~took], telemetry, state.spec.gate)

    def answers(self, rows: Rows, now: float) -> Parted:
        """What each should run, when that is not what it said it runs; see ``Engine.answer``."""
        running = self._fleet.running_ids[rows]
        if self._desired.recalls(running):
            return self._one_by_one(rows, now)
        parts: list[tuple[Offer | None, Rows]] = []
        kept = np.ones(len(rows), np.bool_)
        for track, places in self._desired.tracks(rows):
            other = places[running[places] != track.release.number]
            unbegun = track.ledger.standings(rows[other]) < Standing.TRIAL
            told = np.ones(len(other), np.bool_)
            if unbegun.any():
                told[unbegun] = self._leave.all_may_stage(track, rows[other[unbegun]], now)
            if told.any():
                parts.append((track.offer, rows[other[told]]))
                kept[other[told]] = False
        if kept.any():
            parts.append((None, rows[kept]))
        return tuple(parts)

    def _one_by_one(self, rows: Rows, now: float) -> Parted:
        parts: dict[Offer | None, list[int]] = {}
        for row in rows.tolist():
            may_stage = partial(self._leave.may_stage, row=row, now=now)
            parts.setdefault(self._desired.offer(row, may_stage), []).append(row)
        return tuple((offer, np.array(told, np.int64)) for offer, told in parts.items())

    def _hear_canaries(self, track: Track, rows: Rows, telemetry: Telemetry) -> None:
        """By profile, as the variant says how much memory it may take."""
        kits = self._fleet.kit_ids[rows]
        for number in np.unique(kits).tolist():
            limit_mib = track.release.memory_limit_mib(self._fleet.kit(number).profile)
            mine = rows[kits == number]
            track.cohorts.hear_canaries(mine, telemetry, track.state.spec.gate, limit_mib)

    def _runs_model(self, rows: Rows, model: str) -> Mask:
        """Who runs a release of the model, or did not say what."""
        running = self._fleet.running_ids[rows]
        fits = np.zeros(len(rows), np.bool_)
        for number in np.unique(running).tolist():
            named = self._fleet.release_named(number)
            if named is None or named[0] == model:
                fits |= running == number
        return fits

    def _budget(self, track: Track, rows: Rows, before: Standings, after: Standings) -> None:
        budgets = track.admission.budgets
        if not budgets.counts:
            return
        for row, was, stands in zip(rows.tolist(), before.tolist(), after.tolist(), strict=True):
            if stands == Standing.TRIAL:
                budgets.take(row, self._fleet.labels(row))
            elif was == Standing.TRIAL:
                budgets.give_back(row)
