"""Published releases that are on their way to nobody."""

from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State


def check(ground: Ground) -> Finding:
    if ground.hub is None:
        return Finding(check="releases", state=State.SKIPPED, text="The hub cannot be asked.")
    models = ground.hub.models().models
    moved = {(view.model, view.release) for view in ground.hub.rollouts().rollouts}
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
            state=State.LOOK,
            text=f"Published, but on no device and in no rollout: {names}.",
            fix=f"edgefleet rollout plan --model {model} --release {release}",
        )
    text = f"{len(models)} models, the newest release of each in use." if models else "None yet."
    return Finding(check="releases", state=State.OK, text=text)
