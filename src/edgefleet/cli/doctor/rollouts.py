"""Rollouts that wait for a person."""

from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State


def check(ground: Ground) -> Finding:
    if ground.hub is None:
        return Finding(check="rollouts", state=State.SKIPPED, text="The hub cannot be asked.")
    views = ground.hub.rollouts().rollouts
    for view in views:
        waits = view.why.for_a_person
        if waits:
            return Finding(
                check="rollouts",
                state=State.LOOK,
                text=f"{view.id} waits for you: {waits[0].text}",
                fix=f"edgefleet rollout why {view.id}",
            )
    return Finding(check="rollouts", state=State.OK, text="None waits for a person.")
