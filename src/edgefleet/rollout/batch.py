"""A batch: many devices that report the same at one moment, processed in columns.

Each method is equivalent to calling the method of ``Admission`` or ``Intake`` that it names for
each row, in row order. Devices are processed one by one if the plan has a limit that depends on the
device. The simulator moves a million devices through a rollout with batches.
"""

from collections.abc import Mapping

import numpy as np

from edgefleet.protocol.device import Offer, Outcome, Telemetry
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.admission.control import Admission
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.cut import EVERYONE
from edgefleet.rollout.fleet.fleet import NOTHING, Fleet
from edgefleet.rollout.intake import Intake

OffersByRow = tuple[tuple[Offer | None, Rows], ...]
"""Each offer with the rows that get it. Rows ascend in each part; no row occurs twice."""


class Batch:
    """The engine's answers to groups of devices. ``rows`` ascend and are never empty."""

    def __init__(
        self,
        fleet: Fleet,
        rollouts: Mapping[str, ActiveRollout],
        desired: Desired,
        admission: Admission,
        intake: Intake,
    ) -> None:
        self._fleet = fleet
        self._rollouts = rollouts
        self._desired = desired
        self._admission = admission
        self._intake = intake

    def concern(self, rows: Rows, outcome: Outcome) -> Mask:
        """For each row: True if the report is to be stored. See ``Intake.position``."""
        active = self._rollouts.get(outcome.rollout)
        if active is None:
            return np.ones(len(rows), np.bool_)
        concerned = active.have_part(rows, outcome.kind)
        if not concerned.all() and active.reservations.reserved:
            concerned |= np.isin(rows, active.reservations.reserved_rows)
        return concerned

    def admit(self, rows: Rows, outcome: Outcome, now: float) -> Mask:
        """For each row: True if the device may start now. The lowest rows are admitted first."""
        active = self._rollouts.get(outcome.rollout)
        if active is None:
            return np.zeros(len(rows), np.bool_)
        return self._admission.admit_all(active, rows, outcome, now)

    def record(self, rows: Rows, outcome: Outcome, at: float | None = None) -> int:
        """Count an outcome that is durable for all ``rows``. Returns the number of new reports."""
        return self._intake.record_all(rows, outcome, at)

    def release(self, rows: Rows, outcome: Outcome) -> None:
        """Free the places of starts that were not stored. See ``Admission.free``."""
        active = self._rollouts.get(outcome.rollout)
        if active is not None and active.reservations.reserved:
            for row in rows.tolist():
                active.reservations.free(row)

    def telemetry(self, rows: Rows, telemetry: Telemetry, now: float) -> None:
        """Add the same serving figures for each of ``rows``. See ``Intake.add_telemetry``."""
        self._intake.add_telemetry_all(rows, telemetry, now)

    def answers(self, rows: Rows, now: float) -> OffersByRow:
        """The offer for each row. None if the device already runs its release, or must wait."""
        running = self._fleet.running_ids[rows]
        if self._admission.limits_bytes or self._desired.withdraws_any(running):
            return self._one_by_one(rows, now)
        parts: list[tuple[Offer | None, Rows]] = []
        kept = np.ones(len(rows), np.bool_)
        for active, places in self._desired.rollouts(rows):
            other = places[running[places] != active.release.number]
            unbegun = active.ledger.standings(rows[other]) < DeviceStanding.TRIAL
            offered = np.ones(len(other), np.bool_)
            if unbegun.any():
                offered[unbegun] = self._admission.all_may_stage(active, rows[other[unbegun]])
            if offered.any():
                parts.append((active.offer, rows[other[offered]]))
                kept[other[offered]] = False
        if kept.any():
            parts.append((None, rows[kept]))
        return tuple(parts)

    def wanted(self, rows: Rows) -> Mask:
        """For each row, all idle devices: True if ``Admission.offer`` may offer a release."""
        numbers = self._desired.numbers(rows)
        wanted: Mask = (numbers != NOTHING) & (numbers != self._fleet.running_ids[rows])
        for active in self._rollouts.values():
            if active.state.status is Status.RUNNING and active.candidates.below < EVERYONE:
                if len(self._desired.of_release(active.release.number)) > 1:
                    continue
                asked = np.flatnonzero(wanted & (numbers == active.release.number))
                unbegun = active.ledger.standings(rows[asked]) < DeviceStanding.TRIAL
                beyond = active.scope.positions(rows[asked]) >= np.uint64(active.candidates.below)
                wanted[asked[unbegun & beyond]] = False
        return wanted

    def _one_by_one(self, rows: Rows, now: float) -> OffersByRow:
        parts: dict[Offer | None, list[int]] = {}
        for row in rows.tolist():
            parts.setdefault(self._admission.offer(row, now), []).append(row)
        return tuple((offer, np.array(places, np.int64)) for offer, places in parts.items())
