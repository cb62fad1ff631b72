"""Credentials that two devices use, as after a copy of a disk."""

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State


def check(context: Context) -> Finding:
    if context.hub is None:
        return Finding(check="copies", state=State.SKIPPED, text="The hub cannot be asked.")
    copied = context.hub.fleet().copied
    if not copied:
        return Finding(check="copies", state=State.OK, text="Each device has its own credential.")
    return Finding(
        check="copies",
        state=State.WARNING,
        text=f"Credentials that two devices use: {copied}.",
        fix="edgefleet device list --copied",
    )
