"""Grants to agents of the previous protocol version, which start without asking.

For these agents the offer is the grant. A place is reserved with the offer, and the offer goes out
once the grant is durable, so a restarted hub knows every device that may have begun. The device
keeps its place until it reports its start or its outcome, or checks in idle when the rollout no
longer offers it the release. A device that does not check in again keeps its place.

Cancellations are not persisted. After a restart, a grant replayed from the store may refer to a
place that was given to another device. The grant counts until the device checks in. A busy device
then keeps the grant. An idle device needs a new grant.
"""

from typing import Final

from edgefleet.protocol.device import Offer, Outcome, OutcomeKind, Phase
from edgefleet.protocol.version import starts_by_itself
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.admission.offers import Offers
from edgefleet.rollout.admission.starts import StartAdmission
from edgefleet.rollout.desired import Desired
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.fleet import Fleet

_ID_CHARS = 64

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_DEFERRED: Final = DeviceStanding.DEFERRED
_IDLE: Final = Phase.IDLE


class LegacyGrants:
    """The grants, at most one for each device. Rebuilt from stored grants, in any order."""

    def __init__(
        self, fleet: Fleet, desired: Desired, admission: StartAdmission, offers: Offers
    ) -> None:
        self._fleet = fleet
        self._desired = desired
        self._admission = admission
        self._offers = offers
        self.by_row: dict[int, ActiveRollout] = {}  # devices with a grant, and its rollout
        self._unconfirmed: set[int] = set()  # rows with a replayed grant and no check-in since

    def give(self, row: int, now: float) -> Outcome | None:
        """The grant that must be stored and recorded before the answer to a check-in.

        None if there is no new grant. To be called for each check-in. A new grant reserves a place.
        """
        active = self.by_row.get(row)
        if active is not None:
            if self._keeps_grant(active, row, now):
                return None
            active.reservations.cancel_grant(row)
            del self.by_row[row]
        if not starts_by_itself(self._fleet.protocol(row)):
            return None
        step = self._desired.next_step(row)
        if not isinstance(step, ActiveRollout) or not self._admission.grant(step, row, now):
            return None
        return _outcome(step, self._fleet.last_seq(row), now)

    def record(self, active: ActiveRollout, row: int, at: float) -> bool:
        """Record the durable grant of ``at``. False if the device has started or ended since."""
        if active.ledger.standing(row) > _DEFERRED:
            return False
        other = self.by_row.get(row)
        if other is not None:
            since = other.reservations.granted_since(row)
            if since is not None and since > at:
                return False  # the grant was cancelled, and a later grant exists
            if other is not active:
                other.reservations.cancel_grant(row)
        self.by_row[row] = active
        if not active.reservations.grant(row, self._fleet.labels(row), at):
            self._unconfirmed.add(row)
        active.note_progress(row, at)
        return True

    def settle(self, active: ActiveRollout, row: int) -> None:
        """Remove the grant of a device that started, or that reported an outcome."""
        if self.by_row.get(row) is active:
            active.reservations.ended(row)
            del self.by_row[row]
            self._unconfirmed.discard(row)

    def _keeps_grant(self, active: ActiveRollout, row: int, now: float) -> bool:
        """True if a device that has just checked in keeps its grant."""
        unconfirmed = row in self._unconfirmed
        self._unconfirmed.discard(row)
        if self._fleet.phase(row) is not _IDLE:
            return True
        return not unconfirmed and self._is_offered(active, row, now)

    def _is_offered(self, active: ActiveRollout, row: int, now: float) -> bool:
        offer = self._offers.decide(row, now)
        return isinstance(offer, Offer) and (offer.rollout, offer.action) == (
            active.state.id,
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
