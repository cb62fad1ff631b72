"""Rollouts that wait for a person."""

from typing import Final

from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.protocol.why import WaitCode

_FOR_A_PERSON: Final = frozenset(
    {WaitCode.START, WaitCode.PAUSED, WaitCode.INCONCLUSIVE, WaitCode.HALTED}
)


def check(ground: Ground) -> Finding:
    if ground.hub is None:
        return Finding(check="rollouts", state=State.SKIPPED, text="The hub cannot be asked.")
    views = ground.hub.rollouts().rollouts
    for view in views:
        if any(wait.code in _FOR_A_PERSON for wait in view.why.waits):
            return Finding(
                check="rollouts",
                state=State.LOOK,
                text=f"{view.id} waits for you: {view.why.line}",
                fix=f"edgefleet rollout why {view.id}",
            )
    return Finding(check="rollouts", state=State.OK, text="None waits for a person.")
