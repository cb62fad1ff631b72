"""Devices that cannot write their disk, each of which waits for a person."""

from edgefleet.base.texts import counted
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State


def check(context: Context) -> Finding:
    if context.hub is None:
        return Finding(check="device disks", state=State.SKIPPED, text="The hub cannot be asked.")
    faults = context.hub.fleet().disk_faults
    if not faults:
        return Finding(check="device disks", state=State.OK, text="Each device can write its disk.")
    named = ", ".join(f"{code} {count}" for code, count in faults.items())
    return Finding(
        check="device disks",
        state=State.WARNING,
        text=f"{counted(sum(faults.values()), 'device')} cannot store anything ({named}). "
        "They serve their releases and take no new one.",
        fix="edgefleet device list --disk-fault",
    )
