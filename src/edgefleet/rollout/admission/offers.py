"""The offer for a device, or the reason why there is none. Answer and ``why`` share this value."""

from edgefleet.protocol.device import Offer
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.admission.starts import StartAdmission
from edgefleet.rollout.constraints.reservations import Blocked
from edgefleet.rollout.desired import Desired


class Offers:
    """Desired state and admission control together."""

    def __init__(self, desired: Desired, admission: StartAdmission) -> None:
        self._desired = desired
        self._admission = admission

    def decide(self, row: int, now: float) -> Offer | Blocked:
        """The offer in the answer to the next check-in, or the reason for none. Changes nothing."""
        step = self._desired.next_step(row)
        if not isinstance(step, ActiveRollout):
            return step
        blocked = self._admission.staging(step, row, now)
        return step.offer if blocked is None else blocked

    def give(self, row: int, now: float) -> Offer | None:
        """The offer in the answer to a check-in. None if there is none.

        An offer consumes the bytes of its download from the budget.
        """
        decision = self.decide(row, now)
        if isinstance(decision, Blocked):
            return None
        self._admission.begin_download(decision, row, now)
        return decision
