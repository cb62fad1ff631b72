"""Counts the reports of devices: of one device, and of many that report the same at one moment.

``record_all`` and ``add_telemetry_all`` have the same result as ``record`` and ``add_telemetry``
called for each row in order. tests/rollout/test_batch.py
compares the results.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import CheckIn, Outcome, OutcomeKind, Telemetry
from edgefleet.protocol.labels import LabelReport
from edgefleet.protocol.rollout import GateSpec
from edgefleet.rollout.active import ActiveRollout, Position
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.device_models import NOTHING
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import JUDGED
from edgefleet.rollout.rollout_index import RolloutIndex

Standings = npt.NDArray[np.uint8]
_AddOne = Callable[[int, Telemetry, GateSpec, int], None]
_AddAll = Callable[[Rows, Telemetry, GateSpec, int], None]

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_TRIAL: Final = DeviceStanding.TRIAL
_NONE: Final = DeviceStanding.NONE
_CAME_BACK: Final = OutcomeKind.REVERTED
_CONFIRMED: Final = OutcomeKind.CONFIRMED
_STARTED: Final = OutcomeKind.TRIAL_STARTED
_FAILED: Final = DeviceStanding.FAILED


class Intake:
    """Counts durable outcomes and serving figures in the rollouts that they concern."""

    def __init__(
        self,
        fleet: Fleet,
        rollouts: Mapping[str, ActiveRollout],
        fleet_wide: FleetConstraints,
        stirred: set[str],
    ) -> None:
        """The id of each rollout with a new report is added to ``stirred``."""
        self._fleet = fleet
        self._rollouts = rollouts
        self._fleet_wide = fleet_wide
        self._stirred = stirred
        self._judged = RolloutIndex(fleet, ())
        self._watched = RolloutIndex(fleet, ())

    def arrange(self) -> None:
        """Select the rollouts that are judged. Call it after a rollout was added or changed."""
        rollouts = self._rollouts.values()
        judged = [one for one in rollouts if one.state.status in JUDGED or one.state.is_baking]
        watched = [one for one in rollouts if one.state.is_watched]
        if not self._judged.is_of(judged):
            self._judged = RolloutIndex(self._fleet, judged)
        if not self._watched.is_of(watched):
            self._watched = RolloutIndex(self._fleet, watched)

    # Outcomes.

    def position(self, row: int, outcome: Outcome) -> Position | None:
        """The position of a device in the rollout that it reports on.

        To be read when the report arrives: the facts of the device may change later. None if the
        device has no part in the rollout, or there is none; the report is dropped then.
        """
        active = self._rollouts.get(outcome.rollout)
        return None if active is None else active.position_of_report(row, outcome.kind)

    def record(
        self,
        row: int,
        outcome: Outcome,
        at: float | None = None,
        position: Position | None = None,
    ) -> bool:
        """Count a durable outcome. False if it is not new or concerns no known rollout.

        ``at`` is the time of receipt, by which the pace counts starts after a restart. The device
        counts in the wave of its ``position``, which is read again if it is not given.
        """
        active = self._rollouts.get(outcome.rollout)
        if active is None or self._fleet.is_removed(row):
            return False
        kind, ledger, reservations = outcome.kind, active.ledger, active.reservations
        # A device that rolls back may also report on the release to which it returns.
        if outcome.release != active.state.spec.release and kind is not _CAME_BACK:
            return False
        if position is None:
            position = active.position(row)
        self._stirred.add(outcome.rollout)
        standings = ledger.record(row, outcome, position.wave, at)
        if standings is None:
            return False
        before, after = standings
        if row in self._fleet.moves or (before is _NONE and not active.scope.selects(row)):
            self._fleet.note_move(row)
        active.tally.move(row, before, after)
        if kind is _CONFIRMED:
            active.cohorts.confirmed(outcome, active.state.spec.gate)
        elif kind is _STARTED:
            active.began(row, at)
        if self._fleet_wide.budgets.counts:
            if after is _TRIAL:
                reservations.begin_trial(row, self._fleet.labels(row))
            elif before is _TRIAL:
                reservations.end_trial(row)
        if after is _FAILED and before is not _FAILED:
            self._fleet_wide.quarantine.add(active.model, row, active.state.id)
        return True

    def record_all(self, rows: Rows, outcome: Outcome, at: float | None) -> int:
        """``record`` for many devices. Returns the number of new reports."""
        active = self._rollouts.get(outcome.rollout)
        if active is None:
            return 0
        if outcome.kind is not _CAME_BACK and outcome.release != active.state.spec.release:
            return 0
        self._stirred.add(outcome.rollout)
        before = active.ledger.standings(rows)
        new = active.ledger.record_all(rows, outcome, active.waves_of(rows), at)
        rows, before = rows[new], before[new]
        if not len(rows):
            return 0
        after = active.ledger.standings(rows)
        self._note_moves(active, rows, before)
        active.tally.move_all(rows, before, after)
        if outcome.kind is _CONFIRMED:
            active.cohorts.confirmed(outcome, active.state.spec.gate, times=len(rows))
        if outcome.kind is _STARTED:
            for row in rows.tolist():
                active.reservations.began(row, at)
            if at is not None:
                active.note_progress(int(rows[0]), at)
        self._budget(active, rows, before, after)
        failed = (after == _FAILED) & (before != _FAILED)
        for row in rows[failed].tolist():
            self._fleet_wide.quarantine.add(active.model, row, active.state.id)
        return len(rows)

    def _note_moves(self, active: ActiveRollout, rows: Rows, before: Standings) -> None:
        """Note the reports of devices that the rollout does not select. See ``Fleet.note_move``."""
        noted = self._fleet.have_moved(rows)
        fresh = np.flatnonzero(before == _NONE)
        noted[fresh] |= ~active.scope.all_selected(rows[fresh])
        for row in rows[noted].tolist():
            self._fleet.note_move(row)

    # Serving figures.

    def add_figures(self, row: int, check_in: CheckIn, now: float) -> None:
        """Add the serving figures and the counts of labels in a check-in.

        The figures of a copied device would be those of several, so they do not count.
        """
        if self._fleet.copies.is_copied(row):
            return
        if check_in.telemetry is not None:
            self.add_telemetry(row, check_in.telemetry, now)
        if check_in.labels is not None:
            self._add_labels(row, check_in.labels, now)

    def add_telemetry(self, row: int, telemetry: Telemetry, now: float) -> None:
        """Add serving figures to the cohort of the device. Not persisted."""
        for active in self._watched.of(row):
            self._add_to_window(active, row, telemetry)
        for active in self._judged.of(row):
            state = active.state
            started = state.started_at is not None and state.started_at <= now
            if not started or not active.scope.eligible(row):
                continue
            if not self._is_of(active.model, row, telemetry):
                if telemetry.scores is not None:
                    self._add_neighbour(active, row, telemetry)
                continue
            took = active.ledger.standing(row) is not _NONE
            add: _AddOne
            if telemetry.release == state.spec.release and took:
                add = active.cohorts.add_canary
            elif telemetry.release == state.previous and not took:
                add = active.cohorts.add_control
            else:
                continue
            memory_mib = active.release.memory_mib.get(self._fleet.profile(row), 0)
            add(row, telemetry, state.spec.gate, memory_mib)

    def add_telemetry_all(self, rows: Rows, telemetry: Telemetry, now: float) -> None:
        """``add_telemetry`` for many devices."""
        for active in self._watched.rollouts:
            self._add_all_to_window(active, rows, telemetry)
        for active in self._judged.rollouts:
            state = active.state
            if state.started_at is None or state.started_at > now:
                continue
            eligible = rows[active.scope.all_eligible(rows)]
            if telemetry.scores is not None and telemetry.model not in (None, active.model):
                for row in eligible.tolist():
                    self._add_neighbour(active, row, telemetry)
            eligible = eligible[self._all_of(active.model, eligible, telemetry)]
            took = active.ledger.standings(eligible) != _NONE
            if telemetry.release == state.spec.release:
                self._by_profile(active, eligible[took], telemetry, active.cohorts.add_canaries)
            elif telemetry.release == state.previous and not took.all():
                self._by_profile(active, eligible[~took], telemetry, active.cohorts.add_controls)

    def _add_labels(self, row: int, report: LabelReport, now: float) -> None:
        """Add the counters of late labels of a device. Not persisted, but for the bets."""
        for active in self._judged.of(row):
            state = active.state
            started = state.started_at is not None and state.started_at <= now
            if not started or not active.scope.eligible(row):
                continue
            found = next((one for one in report.models if one.model == active.model), None)
            if found is not None:
                active.cohorts.labels.add(
                    row,
                    report.epoch,
                    found,
                    release=state.spec.release,
                    previous=state.previous,
                    gate=state.spec.gate,
                    is_control=active.ledger.standing(row) is _NONE,
                    period=(state.wave, state.bake is not None),
                )

    def _add_to_window(self, active: ActiveRollout, row: int, telemetry: Telemetry) -> None:
        """Add figures to the open window of a rollout that is watched after its last wave."""
        window, bake, scope = active.window, active.state.bake, active.scope
        is_control = telemetry.release == active.state.previous
        if window is None or bake is None:
            return
        if not is_control and telemetry.release != active.state.spec.release:
            return
        if not scope.eligible(row) or not self._is_of(active.model, row, telemetry):
            return
        if is_control or active.is_sampled(row):
            window.add(row, telemetry, bake.limit_us, is_control=is_control)

    def _add_all_to_window(self, active: ActiveRollout, rows: Rows, telemetry: Telemetry) -> None:
        """``_add_to_window`` for many devices."""
        window, bake = active.window, active.state.bake
        is_control = telemetry.release == active.state.previous
        if window is None or bake is None:
            return
        if not is_control and telemetry.release != active.state.spec.release:
            return
        mine = rows if is_control else active.all_sampled(rows)
        mine = mine[active.scope.all_eligible(mine)]
        mine = mine[self._all_of(active.model, mine, telemetry)]
        for row in mine.tolist():
            window.add(row, telemetry, bake.limit_us, is_control=is_control)

    def _by_profile(
        self, active: ActiveRollout, rows: Rows, telemetry: Telemetry, add: _AddAll
    ) -> None:
        """Add figures profile by profile: each variant has its own memory limit."""
        kits = self._fleet.kit_ids[rows]
        for number in np.unique(kits).tolist():
            limit_mib = active.release.memory_mib.get(self._fleet.kit(number).profile, 0)
            add(rows[kits == number], telemetry, active.state.spec.gate, limit_mib)

    def _add_neighbour(self, active: ActiveRollout, row: int, telemetry: Telemetry) -> None:
        """Add figures of another model of the device, for an agent that names it."""
        took = active.ledger.standing(row) is not _NONE
        active.cohorts.neighbours.add(
            row, telemetry, active.state.spec.gate, active.switch if took else None
        )

    def _is_of(self, model: str, row: int, telemetry: Telemetry) -> bool:
        """True if the figures are of ``model``. An agent with one model does not name it."""
        if telemetry.model is not None:
            return telemetry.model == model
        running = self._fleet.set_of(row).by_model
        return not running or model in running

    def _all_of(self, model: str, rows: Rows, telemetry: Telemetry) -> Mask:
        """``_is_of`` for each of ``rows``."""
        if telemetry.model is not None:
            return np.full(len(rows), telemetry.model == model)
        models = self._fleet.models
        mine: Mask = models.all_releases(rows, model) != NOTHING
        return mine | ~models.all_have_other(rows, model)

    def _budget(
        self, active: ActiveRollout, rows: Rows, before: Standings, after: Standings
    ) -> None:
        if not self._fleet_wide.budgets.counts:
            return
        reservations = active.reservations
        for row, old, new in zip(rows.tolist(), before.tolist(), after.tolist(), strict=True):
            if new == _TRIAL:
                reservations.begin_trial(row, self._fleet.labels(row))
            elif old == _TRIAL:
                reservations.end_trial(row)
