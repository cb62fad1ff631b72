"""Approval: how many people agreed with a rollout or a wave, and who is still missing."""

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import Approval, ApprovalSpec, Status
from edgefleet.rollout.lifecycle.state import OPEN, RolloutState

PEOPLE_MOST = 2


def check_approval(spec: ApprovalSpec) -> None:
    """Raises OperatorError ``approval_invalid``."""
    if not 0 <= spec.people <= PEOPLE_MOST:
        raise OperatorError(
            "approval_invalid", f"{spec.people} people is none of 0, 1 and 2.",
            field="approval.people",
        )  # fmt: skip


def wave_to_approve(state: RolloutState) -> int:
    """The wave that people agree with now: the open one if each needs it, else the first."""
    return (state.wave or 0) if state.spec.approval.each_wave else 0


def approvers(state: RolloutState) -> tuple[str, ...]:
    """Who agreed with what is open now."""
    wave = wave_to_approve(state)
    return tuple(approval.person for approval in state.approvals if approval.wave == wave)


def missing(state: RolloutState) -> int:
    """How many people still have to agree before devices begin."""
    if not state.spec.approval.people:
        return 0
    return max(0, state.spec.approval.people - len(approvers(state)))


def check_person(state: RolloutState, person: str) -> None:
    """Raises OperatorError ``verb_not_now`` or ``approved_already``."""
    if state.status not in OPEN or state.status is Status.REVERTING or not missing(state):
        raise OperatorError("verb_not_now", f"Rollout {state.id} waits for nobody to approve it.")
    if person in approvers(state):
        raise OperatorError(
            "approved_already", f"{person} has approved it already: two people must.",
            field="person",
        )  # fmt: skip


def approval(state: RolloutState, person: str, now: float) -> Approval:
    return Approval(person=person, at=now, wave=wave_to_approve(state))
