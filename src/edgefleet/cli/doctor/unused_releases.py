"""Published releases that no device runs and no rollout moves."""

from edgefleet.base.texts import counted
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State


def check(context: Context) -> Finding:
    if context.hub is None:
        return Finding(check="releases", state=State.SKIPPED, text="The hub does not answer.")
    models = context.hub.models().models
    moved = {(view.model, view.release) for view in context.hub.rollouts().rollouts}
    idle = [
        (model.name, model.releases[0])
        for model in models
        if model.releases
        and not model.devices.get(model.releases[0])
        and (model.name, model.releases[0]) not in moved
    ]
    if idle:
        model, release = idle[0]
        names = ", ".join(f"{name} {number}" for name, number in idle[:5])
        return Finding(
            check="releases",
            state=State.WARNING,
            text=f"Published, but on no device and in no rollout: {names}.",
            fix=f"edgefleet rollout plan --model {model} --release {release}",
        )
    text = (
        f"{counted(len(models), 'model')}, the newest release of each in use."
        if models
        else "No model is published yet."
    )
    return Finding(check="releases", state=State.OK, text=text)
