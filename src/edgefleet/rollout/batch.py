"""A batch: many devices that report the same at one moment, processed in columns.

Each method is equivalent to calling the method of ``Admission`` or ``Intake`` that it names for
each row, in row order. Devices are processed one by one if the plan has a limit that depends on the
device. The simulator moves a million devices through a rollout with batches.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import CheckIn, Offer, Outcome
from edgefleet.protocol.rollout import Status
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.admission.control import Admission
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.cut import EVERYONE
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.intake import Intake

OffersByRow = tuple[tuple[tuple[Offer, ...], Rows], ...]
"""All offers of a row with the rows that get them. Rows ascend in each part; none occurs twice."""


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
            return np.zeros(len(rows), np.bool_)
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

    def figures(self, rows: Rows, check_in: CheckIn, now: float) -> None:
        """Add the same figures for each of ``rows``. See ``Intake.add_figures``."""
        rows = self._fleet.copies.without(rows)
        if check_in.labels is not None:  # device by device, as each has a comparison of its own
            for row in rows.tolist():
                self._intake.add_figures(row, check_in, now)
        elif check_in.telemetry is not None:
            self._intake.add_telemetry_all(rows, check_in.telemetry, now)

    def answers(self, rows: Rows, now: float) -> OffersByRow:
        """The offers for each row. None if the device runs its releases, or must wait."""
        if self._admission.limits_bytes or self._desired.withdraws_any(rows):
            return self._one_by_one(rows, now)
        found: list[tuple[Offer, npt.NDArray[np.intp]]] = []
        ahead = self._admission.ahead.blocks_all("", "", rows)
        known = np.flatnonzero(~(self._fleet.models.all_unknown(rows) | ahead))
        for model in self._desired.models:
            for active, places in self._desired.changes(rows[known], model):
                other = known[places]
                unbegun = active.ledger.standings(rows[other]) < DeviceStanding.TRIAL
                offered = np.ones(len(other), np.bool_)
                if unbegun.any():
                    offered[unbegun] = self._admission.all_may_stage(active, rows[other[unbegun]])
                if offered.any():
                    found.append((active.offer, other[offered]))
        found.sort(key=lambda one: self._admission.age(one[0].rollout))
        return self._grouped(rows, found, now)

    def wanted(self, rows: Rows) -> Mask:
        """For each row, all idle devices: True if ``Admission.offers`` may offer a release."""
        wanted = np.zeros(len(rows), np.bool_)
        for model in self._desired.models:
            for active, places in self._desired.changes(rows, model):
                wanted[places[self._may_want(active, rows[places])]] = True
        return wanted

    def _may_want(self, active: ActiveRollout, rows: Rows) -> Mask:
        """For each row that should run the release: False if it is no candidate for a download."""
        below = active.candidates.below
        shared = len(self._desired.of_release(active.release.number)) > 1
        if active.state.status is not Status.RUNNING or below >= EVERYONE or shared:
            return np.ones(len(rows), np.bool_)
        begun = active.ledger.standings(rows) >= DeviceStanding.TRIAL
        return begun | (active.scope.positions(rows) < np.uint64(below))

    def _grouped(
        self, rows: Rows, found: list[tuple[Offer, npt.NDArray[np.intp]]], now: float
    ) -> OffersByRow:
        """The rows by their offers. ``found`` has each offer with its indices into ``rows``."""
        kind = np.zeros(len(rows), np.int64)  # equal for rows with equal offers
        kinds: list[tuple[Offer, ...]] = [()]
        for offer, places in found:
            present, kind[places] = np.unique(kind[places], return_inverse=True)
            kind[places] += len(kinds)
            kinds += [(*kinds[before], offer) for before in present.tolist()]
        parts: list[tuple[tuple[Offer, ...], Rows]] = []
        for number in np.unique(kind).tolist():
            mine = rows[kind == number]
            if len(kinds[number]) > 1 and self._fleet.has_older_agents:
                parts += self._one_by_one(mine, now)
            else:
                parts.append((kinds[number], mine))
        return tuple(parts)

    def _one_by_one(self, rows: Rows, now: float) -> OffersByRow:
        parts: dict[tuple[Offer, ...], list[int]] = {}
        for row in rows.tolist():
            parts.setdefault(self._admission.offers(row, now), []).append(row)
        return tuple((offers, np.array(places, np.int64)) for offers, places in parts.items())
