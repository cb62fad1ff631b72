"""The hub: it answers, and is of this version."""

from edgefleet import __version__
from edgefleet.base.errors import EdgefleetError
from edgefleet.cli.doctor.context import Ground
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.cli.values import duration


def check(ground: Ground) -> Finding:
    health = ground.health
    if isinstance(health, EdgefleetError):
        fix = health.hint if health.field else "edgefleet serve, or name the hub that runs: --hub"
        return Finding(check="hub", state=State.BAD, text=health.message, fix=fix)
    text = f"edgefleet {health.version}, {health.devices} devices, up {duration(health.uptime_s)}."
    if health.version != __version__:
        return Finding(
            check="hub",
            state=State.LOOK,
            text=f"{text} This command line is {__version__}.",
            fix=f"pip install 'edgefleet[all]=={health.version}'",
        )
    return Finding(check="hub", state=State.OK, text=text)
