"""Grants to agents of the previous protocol version, which start without asking.

For these agents the offer is the grant. A place is reserved with the offer, and the offer goes out
once the grant is durable, so a restarted hub knows every device that may have begun. The device
keeps its place until it reports its start or its outcome, or checks in idle when the rollout no
longer offers it the release. A device that does not check in again keeps its place.

Cancellations are not persisted. After a restart, a grant replayed from the store may refer to a
place that was given to another device. The grant counts until the device checks in: at work, the
device keeps the grant; idle, the device needs a new one.
"""

from typing import Final

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind, Phase
from edgefleet.protocol.version import starts_by_itself
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.admission.starts import StartAdmission
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.fleet import Fleet

_ID_CHARS = 64

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_DEFERRED: Final = DeviceStanding.DEFERRED
_IDLE: Final = Phase.IDLE


class LegacyGrants:
    """At most one a device. Rebuilt from what was recorded, in any order."""

    def __init__(self, fleet: Fleet, desired: Desired, admission: StartAdmission) -> None:
        self._fleet = fleet
        self._desired = desired
        self._admission = admission
        self.by_row: dict[int, ActiveRollout] = {}  # devices with a grant, and its rollout
        self._unheard: set[int] = set()  # rows that hold one from the record, not heard since

    def give(self, row: int, now: float) -> Outcome | None:
        """The grant that must be stored and recorded before the device is answered, if any.

        To be asked after each check-in. The place is reserved as ``StartAdmission.admit`` does it.
        """
        held = self.by_row.get(row)
        if held is not None:
            if self._goes_on(held, row, now):
                return None
            held.reservations.cancel_grant(row)
            del self.by_row[row]
        if not starts_by_itself(self._fleet.protocol(row)):
            return None
        step = self._desired.next_step(row)
        if not isinstance(step, ActiveRollout) or not self._admission.grant(step, row, now):
            return None
        return _outcome(step, self._fleet.last_seq(row), now)

    def record(self, active: ActiveRollout, row: int, at: float) -> bool:
        """A grant of ``at`` is durable; False when the device has answered it already."""
        if active.ledger.standing(row) > _DEFERRED:
            return False
        other = self.by_row.get(row)
        if other is not None:
            since = other.reservations.granted_since(row)
            if since is not None and since > at:
                return False  # it was let go of: a later one was given
            if other is not active:
                other.reservations.cancel_grant(row)
        self.by_row[row] = active
        if not active.reservations.grant(row, self._fleet.labels(row), at):
            self._unheard.add(row)
        active.note_progress(row, at)
        return True

    def settle(self, active: ActiveRollout, row: int) -> None:
        """The device began, or said how it ended: its grant is used up."""
        if self.by_row.get(row) is active:
            active.reservations.ended(row)
            del self.by_row[row]
            self._unheard.discard(row)

    def _goes_on(self, held: ActiveRollout, row: int, now: float) -> bool:
        """True when the device, just heard, keeps its grant."""
        unheard = row in self._unheard
        self._unheard.discard(row)
        if self._fleet.phase(row) is not _IDLE:
            return True
        return not unheard and self._is_offered(held, row, now)

    def _is_offered(self, held: ActiveRollout, row: int, now: float) -> bool:
        offer = self._desired.decide(row, lambda active: self._admission.staging(active, row, now))
        return isinstance(offer, Offer) and (offer.rollout, offer.action) == (
            held.state.id,
            "install",
        )


def _outcome(active: ActiveRollout, seq: int, now: float) -> Outcome:
    spec = active.state.spec
    return Outcome(
        id=f"offered/{seq}/{active.state.id}"[:_ID_CHARS],
        rollout=active.state.id,
        release=spec.release,
        kind=OutcomeKind.OFFERED,
        at=now,
    )
