"""Counting what devices say: of one, and of many that say the same at the same moment.

``record_all`` and ``hear_all`` come to what ``record`` and ``hear`` come to for one after the
other; a test holds the two against each other.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Outcome, OutcomeKind, Telemetry
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.admission.legacy_grants import LegacyGrants
from edgefleet.rollout.admission.starts import StartAdmission
from edgefleet.rollout.evidence.ledger import WENT_BACK, DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import JUDGED

Standings = npt.NDArray[np.uint8]

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_TRIAL: Final = DeviceStanding.TRIAL
_HEALTHY: Final = DeviceStanding.HEALTHY
_DEFERRED: Final = DeviceStanding.DEFERRED
_NONE: Final = DeviceStanding.NONE
_CAME_BACK: Final = OutcomeKind.REVERTED
_GRANTED: Final = OutcomeKind.OFFERED
_PUT_OFF: Final = OutcomeKind.DEFERRED
_CONFIRMED: Final = OutcomeKind.CONFIRMED
_STARTED: Final = OutcomeKind.TRIAL_STARTED
_WENT_BACK: Final = [int(standing) for standing in WENT_BACK]


class Intake:
    """Takes durable outcomes and serving figures into the rollouts that they are about."""

    def __init__(
        self,
        fleet: Fleet,
        tracks: Mapping[str, ActiveRollout],
        leave: StartAdmission,
        grants: LegacyGrants,
    ) -> None:
        self._fleet = fleet
        self._tracks = tracks
        self._leave = leave
        self._grants = grants
        self._judged: tuple[ActiveRollout, ...] = ()

    def arrange(self) -> None:
        """A rollout came or changed: figures matter to those that are judged by them."""
        tracks = self._tracks.values()
        self._judged = tuple(track for track in tracks if track.state.status in JUDGED)

    # Outcomes.

    def record(self, row: int, outcome: Outcome, at: float | None) -> bool:
        """See ``Engine.record``."""
        track = self._tracks.get(outcome.rollout)
        if track is None:
            return False
        kind, ledger, admission = outcome.kind, track.ledger, track.admission
        # On the way back a device may also report on the release that it goes back to.
        if outcome.release != track.state.spec.release and kind is not _CAME_BACK:
            return False
        if kind is _GRANTED:
            return self._grants.record(track, row, outcome.at)
        if kind is _PUT_OFF:
            admission.put_off(row, outcome.at if at is None else at)
        before = ledger.standing(row)
        counted = before is _TRIAL or before is _HEALTHY  # in its wave, for good
        if not ledger.record(row, outcome, None if counted else track.wave_of(row)):
            return False
        after = ledger.standing(row)
        if kind is _CONFIRMED:
            track.cohorts.confirmed(outcome, track.state.spec.gate)
        elif kind is _STARTED:
            admission.began(row, at)
            if at is not None:
                track.moved(row, at)
        if self._grants.given and after > _DEFERRED:
            self._grants.settle(track, row)
        if admission.budgets.counts:
            if after is _TRIAL:
                admission.budgets.take(row, self._fleet.labels(row))
            elif before is _TRIAL:
                admission.budgets.give_back(row)
        if after in WENT_BACK and before not in WENT_BACK:
            self._leave.quarantine.add(track.state.spec.model, row)
        return True

    def record_all(self, rows: Rows, outcome: Outcome, at: float | None) -> int:
        """``record`` for many devices; how many said something new."""
        track = self._tracks.get(outcome.rollout)
        if track is None:
            return 0
        if outcome.kind is not _CAME_BACK and outcome.release != track.state.spec.release:
            return 0
        if outcome.kind is _GRANTED:
            return sum(self._grants.record(track, row, outcome.at) for row in rows.tolist())
        if outcome.kind is _PUT_OFF:
            for row in rows.tolist():
                track.admission.put_off(row, outcome.at if at is None else at)
        before = track.ledger.standings(rows)
        new = track.ledger.record_all(rows, outcome, track.waves_of(rows))
        rows, before = rows[new], before[new]
        if not len(rows):
            return 0
        after = track.ledger.standings(rows)
        if outcome.kind is _CONFIRMED:
            track.cohorts.confirmed(outcome, track.state.spec.gate, times=len(rows))
        if outcome.kind is _STARTED:
            for row in rows.tolist():
                track.admission.began(row, at)
            if at is not None:
                track.moved(int(rows[0]), at)
        if self._grants.given:
            for row in rows[after > _DEFERRED].tolist():
                self._grants.settle(track, row)
        self._budget(track, rows, before, after)
        went_back = np.isin(after, _WENT_BACK) & ~np.isin(before, _WENT_BACK)
        for row in rows[went_back].tolist():
            self._leave.quarantine.add(track.state.spec.model, row)
        return len(rows)

    # Serving figures.

    def hear(self, row: int, telemetry: Telemetry, now: float) -> None:
        """See ``Engine.telemetry``."""
        for track in self._judged:
            state = track.state
            started = state.started_at is not None and state.started_at <= now
            if not started or not track.scope.eligible(row):
                continue
            running = self._fleet.running(row)
            if running is not None and running[0] != state.spec.model:
                continue
            took = track.ledger.standing(row) is not _NONE
            if telemetry.release == state.spec.release and took:
                track.cohorts.hear_canary(
                    row,
                    telemetry,
                    state.spec.gate,
                    track.release.memory_limit_mib(self._fleet.profile(row)),
                )
            elif telemetry.release == state.previous and not took:
                track.cohorts.hear_control(row, telemetry, state.spec.gate)

    def hear_all(self, rows: Rows, telemetry: Telemetry, now: float) -> None:
        """``hear`` for many devices."""
        for track in self._judged:
            state = track.state
            if state.started_at is None or state.started_at > now:
                continue
            heard = rows[track.scope.all_eligible(rows) & self._runs_model(rows, state.spec.model)]
            took = track.ledger.standings(heard) != _NONE
            if telemetry.release == state.spec.release:
                self._hear_canaries(track, heard[took], telemetry)
            elif telemetry.release == state.previous and not took.all():
                track.cohorts.hear_controls(heard[~took], telemetry, state.spec.gate)

    def _hear_canaries(self, track: ActiveRollout, rows: Rows, telemetry: Telemetry) -> None:
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

    def _budget(
        self, track: ActiveRollout, rows: Rows, before: Standings, after: Standings
    ) -> None:
        budgets = track.admission.budgets
        if not budgets.counts:
            return
        for row, was, stands in zip(rows.tolist(), before.tolist(), after.tolist(), strict=True):
            if stands == _TRIAL:
                budgets.take(row, self._fleet.labels(row))
            elif was == _TRIAL:
                budgets.give_back(row)
