"""Admission control: which devices may download a release now, and which may start it.

``decide`` has the offer for a device, or the reason why there is none. The answer to a check-in and
``why`` share this value.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from edgefleet.base.texts import counted
from edgefleet.protocol.device import Offer, Outcome
from edgefleet.protocol.rollout import Status
from edgefleet.protocol.version import has_one_model
from edgefleet.protocol.why import WAITS, WaitCode
from edgefleet.rollout.active import ActiveRollout, Position
from edgefleet.rollout.admission import downloads
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.constraints.ahead import Ahead
from edgefleet.rollout.constraints.blocked import Blocked
from edgefleet.rollout.constraints.fleet_wide import FleetConstraints
from edgefleet.rollout.constraints.label_budget import LabelsByRow
from edgefleet.rollout.constraints.other_trial import Trials
from edgefleet.rollout.constraints.window import LABEL
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.ledger import EXCLUDED, DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows, RowSelection
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import OPEN

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_TRIAL: Final = DeviceStanding.TRIAL
_HEALTHY: Final = DeviceStanding.HEALTHY
_FAILED: Final = DeviceStanding.FAILED
_REFUSED: Final = DeviceStanding.REFUSED
_RUNNING: Final = Status.RUNNING

_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class Admission:
    """Admits devices by the state of a rollout, its places, and the fleet-wide constraints."""

    def __init__(
        self,
        fleet: Fleet,
        rollouts: Mapping[str, ActiveRollout],
        desired: Desired,
        fleet_wide: FleetConstraints,
    ) -> None:
        self._fleet = fleet
        self._rollouts = rollouts
        self._desired = desired
        self._fleet_wide = fleet_wide

    def arrange(self) -> None:
        """Compute the fleet-wide limits again. To be called when a rollout is added or changes."""
        rollouts = self._rollouts.values()
        specs = {
            active.state.id: active.state.spec for active in rollouts if active.state.status in OPEN
        }
        completed = {
            active.state.id: active.state.spec
            for active in rollouts
            if active.state.status is Status.COMPLETED and active.state.spec.budgets
        }
        several = len({active.state.spec.model for active in rollouts}) > 1
        trials = tuple(map(_trials, rollouts)) if several else ()
        self._fleet_wide.arrange(specs, completed, self._in_trial, trials, self._giver)

    # Offers.

    def decide(self, row: int, model: str, now: float) -> Offer | Blocked:
        """The offer of the model in the answer to the next check-in, or the reason for none.

        Changes nothing. An agent with one model gets only the first of its offers.
        """
        ahead = self._fleet_wide.ahead
        if ahead.is_active and ahead.blocks("", model, row):
            return Blocked(ahead.code, ahead.text("", row, self._fleet.name(row)))
        step = self._desired.next_step(row, model)
        if not isinstance(step, ActiveRollout):
            return step
        blocked = self.staging(step, row, now)
        return step.offer if blocked is None else blocked

    def offers(self, row: int, now: float) -> tuple[Offer, ...]:
        """The offers in the answer to a check-in, that of the oldest rollout first.

        An offer consumes the bytes of its download from the budgets of all open rollouts.
        """
        found: tuple[Offer, ...] = ()
        if self._desired.is_settled(row):
            return found
        for model in self._desired.models:
            decision = self.decide(row, model, now)
            if isinstance(decision, Offer):
                found = (*found, decision)
        if not found:
            return found
        if len(found) > 1:
            found = self.in_order(row, found)
        if self._fleet_wide.bytes.is_bounded:
            for offer in found:
                self._count_bytes(offer, row, now)
        return found

    def has_offer(self, row: int, now: float) -> bool:
        """Whether ``offers`` has any. Changes nothing."""
        if self._desired.is_settled(row):
            return False
        for model in self._desired.models:
            if isinstance(self.decide(row, model, now), Offer):
                return True
        return False

    def in_order(self, row: int, offers: Collection[Offer]) -> tuple[Offer, ...]:
        """The offers of one device, that of the oldest rollout first.

        An agent with one model gets the first, or that of the rollout that it has begun.
        """
        found = sorted(offers, key=lambda offer: self.age(offer.rollout))
        if has_one_model(self._fleet.protocol(row)):
            found.sort(key=lambda offer: not self._has_begun(row, offer))
            return (found[0],)
        return tuple(found)

    def age(self, rollout: str) -> tuple[float, str]:
        """The sort key by which an older rollout comes first."""
        active = self._rollouts.get(rollout)
        return (0.0, "") if active is None else (active.state.created_at, rollout)

    def _giver(self, row: int, model: str) -> str | None:
        active = self._desired.rollout(row, model)
        return None if active is None else active.state.id

    def _has_begun(self, row: int, offer: Offer) -> bool:
        active = self._rollouts[offer.rollout]
        return active.ledger.standing(row) >= _TRIAL or active.reservations.has_place(row)

    def _count_bytes(self, offer: Offer, row: int, now: float) -> None:
        active = self._rollouts.get(offer.rollout)
        if offer.action == "revert" or active is None:
            return
        if active.ledger.standing(row) < _TRIAL:
            downloads.count_bytes(active, self._fleet, row, now, self._fleet_wide.bytes)

    # Starts.

    def admit(
        self, row: int, outcome: Outcome, now: float, position: Position | None = None
    ) -> bool:
        """Whether the device may start now. ``outcome`` is the start that it announces.

        True reserves the place until the start is recorded or ``free`` returns it. A start that is
        recorded or reserved already is admitted again. ``position`` saves reading it again.
        """
        active = self._rollouts.get(outcome.rollout)
        if active is None or outcome.release != active.state.spec.release:
            return False
        if position is None:
            position = active.position(row)
        standing = position.standing
        if position.has_place:
            active.reservations.reserve(row, self._labels(row), now)
            return True
        if standing is _TRIAL or standing is _HEALTHY:
            return True
        if not active.gives(row, standing, self._fleet.numbers(row), position):
            return False
        refused = self.refusal(active, row, now)
        if refused is None:
            active.reserve(row, self._labels(row), now)
        elif WAITS[refused.code].pauses_patience:
            active.reservations.note_progress(now)
        return refused is None

    def free(self, row: int, outcome: Outcome) -> None:
        """Return the place of a start that could not be stored."""
        active = self._rollouts.get(outcome.rollout)
        if active is not None:
            active.reservations.free(row)

    def admit_all(self, active: ActiveRollout, rows: Rows, outcome: Outcome, now: float) -> Mask:
        """``admit`` for many rows, ascending, that report the same start. Low rows come first."""
        spec, ledger = active.state.spec, active.ledger
        reservations = active.reservations
        if spec.windows or self._fleet_wide.budgets.counts or reservations.reserved:
            each = (self.admit(row, outcome, now) for row in rows.tolist())
            return np.fromiter(each, np.bool_, len(rows))
        if outcome.release != spec.release:
            return np.zeros(len(rows), np.bool_)
        standings = ledger.standings(rows)
        admitted: Mask = (standings == _TRIAL) | (standings == _HEALTHY)
        if active.reservations.door(active.state, None, now) is not None:
            return admitted
        asking = ~admitted & ~ledger.have(rows, EXCLUDED)
        asking &= active.covered(rows, self._fleet)
        for one in self._fleet_wide.per_device:
            if one.is_active:
                blocked = asking & one.blocks_all(active.state.id, spec.model, rows)
                if WAITS[one.code].pauses_patience and blocked.any():
                    reservations.note_progress(now)
                asking &= ~blocked
        free = max(0, allowed(active, now) - active.in_trial)
        room = active.reservations.starts.room(now)
        asked = np.flatnonzero(asking)
        most = free if room is None else min(free, room)
        began = asked[active.tally.admit(rows[asked], most, spec.exposure)]
        if len(began):
            active.reservations.reserve_all(rows[began], now)
            # The lowest row enrolled first, and so is the least likely newcomer.
            active.note_progress(int(rows[began[0]]), now)
            admitted[began] = True
        return admitted

    def refusal(self, active: ActiveRollout, row: int, now: float) -> Blocked | None:
        """The reason why the device may not start now. None if it may. Changes nothing."""
        spec, reservations = active.state.spec, active.reservations
        labels = self._fleet.labels(row) if spec.windows or spec.budgets else _NO_LABELS
        shut = reservations.door(active.state, labels, now)
        if shut is not None:
            return shut
        return (
            self._constraint(active, row)
            or reservations.no_place(
                row,
                labels,
                now,
                allowed=allowed(active, now),
                started=active.tally.count(_TRIAL),
                reason=lambda: limit_reason(active, now),
            )
            or _full_class(active, row)
        )

    def staging(self, active: ActiveRollout, row: int, now: float) -> Blocked | None:
        """The reason why a device that has not started may not download now.

        None if it may. Changes nothing.
        """
        if self._fleet_wide.freeze.frozen:
            return active.reservations.door(active.state, None, now)
        constraint = self._constraint(active, row, to_download=True)
        if constraint is not None or active.state.status is not _RUNNING:
            return constraint
        return downloads.blocked(active, self._fleet, row, now, self._fleet_wide.bytes)

    def _labels(self, row: int) -> Mapping[str, str]:
        """The labels by which the budgets count the device. Empty if there are no budgets."""
        return self._fleet.labels(row) if self._fleet_wide.budgets.counts else _NO_LABELS

    def _constraint(
        self, active: ActiveRollout, row: int, *, to_download: bool = False
    ) -> Blocked | None:
        """The first constraint of this device. None if there is none."""
        rollout, model = active.state.id, active.state.spec.model
        for one in self._fleet_wide.per_device:
            asked = one.is_active and (one.blocks_downloads or not to_download)
            if asked and one.blocks(rollout, model, row):
                return Blocked(one.code, one.text(rollout, row, self._fleet.name(row)))
        return None

    @property
    def ahead(self) -> Ahead:
        """The devices to which nothing is offered, because they are ahead of the hub."""
        return self._fleet_wide.ahead

    @property
    def limits_bytes(self) -> bool:
        """True if an open rollout limits the bytes of downloads."""
        return self._fleet_wide.bytes.is_bounded

    def all_may_stage(self, active: ActiveRollout, rows: Rows) -> Mask:
        """``staging`` is None, for each row. For a fleet without a limit on bytes."""
        if self._fleet_wide.freeze.frozen:
            return np.zeros(len(rows), np.bool_)
        mask = np.ones(len(rows), np.bool_)
        blocked = self._fleet_wide.without_download(active.state.id, active.state.spec.model)
        if len(blocked):
            mask = ~np.isin(rows, blocked)
        if active.state.status is _RUNNING:
            mask[mask] = downloads.all_may_stage(active, self._fleet, rows[mask])
        return mask

    def shut_to_all(self, active: ActiveRollout, waiting: RowSelection, now: float) -> bool:
        """True while freeze, approval or window blocks each of ``waiting`` in its own time zone."""
        reservations = active.reservations
        if reservations.door(active.state, None, now) is not None:
            return True
        if not reservations.hours.by_device or not len(waiting):
            return False
        numbers = np.flatnonzero(np.bincount(self._fleet.label_ids[waiting.all()])).tolist()
        zones = {self._fleet.label_set(number).get(LABEL) for number in numbers}
        return not any(reservations.hours.open(zone, now) for zone in zones)

    def _in_trial(self, rollout: str) -> LabelsByRow:
        """The devices that have a place in the rollout, with their current labels."""
        active = self._rollouts[rollout]
        trial = active.ledger.rows(_TRIAL).tolist()
        rows = {*trial, *active.reservations.reserved_rows}
        return {row: self._fleet.labels(row) for row in rows}


def _trials(active: ActiveRollout) -> Trials:
    state = active.state
    is_open = state.status in OPEN and state.status is not Status.PLANNED
    return Trials(
        state.id, active.model, state.spec.release, is_open, active.ledger, active.reservations
    )


def allowed(active: ActiveRollout, now: float) -> int:
    """The number of devices that may be in trial at once."""
    if active.holds_late:
        return active.in_trial
    spec, overdue = active.state.spec.exposure, active.overdue
    trusted = exposure.trusted(spec, healthy=_healthy(active, now), devices=active.devices)
    # Devices that were lost before a pause do not keep the places of those that begin after it.
    lost = len(active.ledger.lost(active.dark, now))
    trusted += lost
    if not (overdue.suspect or _is_suspicious(active) or active.late.brakes):
        return trusted
    return exposure.allowed(
        spec,
        trusted=trusted,
        in_trial=active.in_trial,
        suspect=True,
        missing=max(overdue.missing, lost),
    )


def _full_class(active: ActiveRollout, row: int) -> Blocked | None:
    """The class of the device that may have no more devices in trial. None if there is none."""
    tally, spec = active.tally, active.state.spec.exposure
    place = tally.full_class(row, spec)
    if place is None or active.reservations.has_place(row):
        return None
    one = tally.classes[place]
    return Blocked(
        WaitCode.EXPOSURE,
        f"In trial with {one.key}={one.value}: {counted(tally.in_trial(place), 'device')} (limit "
        f"{tally.limit(place, spec)}): {exposure.SO_FAR}.",
    )


def limit_reason(active: ActiveRollout, now: float) -> str:
    """The reason why ``allowed`` is not larger, as the end of a sentence."""
    spec = active.state.spec.exposure
    if active.holds_late:
        return exposure.NO_MORE
    if active.overdue.suspect:
        return active.overdue.reason
    if active.late.brakes:
        return exposure.LATE
    if _is_suspicious(active):
        return exposure.SUSPECT
    if allowed(active, now) == exposure.ceiling(spec, active.devices) > spec.first:
        return exposure.ceiling_reason(spec, active.devices)
    return exposure.SO_FAR


def _healthy(active: ActiveRollout, now: float) -> int:
    """The healthy devices by which the limit grows: those that began since the last pause."""
    ledger = active.ledger
    return 0 if ledger.activations.is_paused(now) else ledger.healthy_since_episode


def _is_suspicious(active: ActiveRollout) -> bool:
    tally = active.tally
    bad = tally.count(_FAILED) + tally.count(_REFUSED)
    size = bad + tally.count(_HEALTHY)
    return bool(bad) and exposure.suspicious(active.state.failures_allowed, bad=bad, size=size)
