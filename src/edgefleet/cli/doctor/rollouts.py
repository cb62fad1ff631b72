"""Rollouts that wait for a person."""

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State


def check(context: Context) -> Finding:
    if context.hub is None:
        return Finding(check="rollouts", state=State.SKIPPED, text="The hub does not answer.")
    views = context.hub.rollouts().rollouts
    for view in views:
        waits = view.why.for_a_person
        if waits:
            return Finding(
                check="rollouts",
                state=State.WARNING,
                text=f"{view.id} waits for a person: {waits[0].text}",
                fix=f"edgefleet rollout why {view.id}",
            )
    return Finding(check="rollouts", state=State.OK, text="No rollout waits for a person.")
