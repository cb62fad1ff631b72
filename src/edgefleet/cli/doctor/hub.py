"""The hub: reachable, and of the same version as the command line."""

from edgefleet import __version__
from edgefleet.base.errors import EdgefleetError
from edgefleet.base.texts import counted
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State
from edgefleet.cli.values import duration


def check(context: Context) -> Finding:
    health = context.health
    if isinstance(health, EdgefleetError):
        fix = health.hint if health.field else "edgefleet serve, or name a running hub with --hub"
        return Finding(check="hub", state=State.BAD, text=health.message, fix=fix)
    devices = counted(health.devices, "device")
    text = f"edgefleet {health.version}, {devices}, up {duration(health.uptime_s)}."
    if health.version != __version__:
        return Finding(
            check="hub",
            state=State.WARNING,
            text=f"{text} The command line is edgefleet {__version__}.",
            fix=f"pip install 'edgefleet[all]=={health.version}'",
        )
    return Finding(check="hub", state=State.OK, text=text)
