"""Devices that run what the hub has no record of, as after a restore from an older copy."""

from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State, not_asked


def check(context: Context) -> Finding:
    if context.hub is None:
        return not_asked("restored")
    fleet = context.hub.fleet()
    if not fleet.ahead and not fleet.unknown_devices:
        return Finding(check="restored", state=State.OK, text="No device is ahead of the hub.")
    return Finding(
        check="restored",
        state=State.WARNING,
        text=f"Devices that run what the hub has no record of: {fleet.ahead}; devices that it does "
        f"not know: {len(fleet.unknown_devices)}. Nothing is offered to them.",
        fix="edgefleet hub accept-restored",
    )
