"""Copied devices: several agents use one credential, as after a copy of a disk."""

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State, not_asked


def check(context: Context) -> Finding:
    if context.hub is None:
        return not_asked("copies")
    copied = context.hub.fleet().copied
    if not copied:
        return Finding(check="copies", state=State.OK, text="No device is copied.")
    return Finding(
        check="copies",
        state=State.WARNING,
        text=f"Devices whose credential several agents use: {copied}.",
        fix="edgefleet device list --copied",
    )
