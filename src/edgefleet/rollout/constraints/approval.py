"""Approval: how many people approved a rollout or a wave, and how many are still missing."""

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import Approval, ApprovalSpec, Status
from edgefleet.rollout.lifecycle.state import OPEN, RolloutState

PEOPLE_MOST = 2


def check_approval(spec: ApprovalSpec) -> None:
    """Raises OperatorError ``approval_invalid``."""
    if not 0 <= spec.people <= PEOPLE_MOST:
        raise OperatorError(
            "approval_invalid", f"The number of people must be 0, 1 or 2, not {spec.people}.",
            field="approval.people",
        )  # fmt: skip


def wave_to_approve(state: RolloutState) -> int:
    """Index of the wave to approve: the open wave if each wave needs approval, else the first."""
    return (state.wave or 0) if state.spec.approval.each_wave else 0


def approvers(state: RolloutState) -> tuple[str, ...]:
    """The people who approved the open wave, or the whole rollout."""
    wave = wave_to_approve(state)
    return tuple(approval.person for approval in state.approvals if approval.wave == wave)


def missing(state: RolloutState) -> int:
    """How many people must still approve before devices may start."""
    if not state.spec.approval.people:
        return 0
    return max(0, state.spec.approval.people - len(approvers(state)))


def not_by(state: RolloutState) -> str:
    """A part of a message: the user who cannot approve. Empty if every user can."""
    return f", not by {state.planned_by}, who planned it" if state.planned_by else ""


def check_person(state: RolloutState, person: str) -> None:
    """Raises OperatorError ``verb_not_now``, ``approved_already`` or ``approves_own_plan``."""
    if state.status not in OPEN or state.status is Status.REVERTING or not missing(state):
        raise OperatorError("verb_not_now", f"Rollout {state.id} needs no approval now.")
    if state.planned_by == person:
        raise OperatorError(
            "approves_own_plan", f"{person} planned rollout {state.id}, and cannot approve it.",
            field="person",
        )  # fmt: skip
    if person in approvers(state):
        raise OperatorError(
            "approved_already", f"{person} has approved already. A second person must approve.",
            field="person",
        )  # fmt: skip


def approval(state: RolloutState, person: str, now: float) -> Approval:
    return Approval(person=person, at=now, wave=wave_to_approve(state))
