"""Devices that cannot write their disk, each of which waits for a person."""

from edgefleet.base.texts import counted
from edgefleet.cli.doctor.context import Context
from edgefleet.cli.doctor.finding import Finding, State, not_asked
from edgefleet.protocol.disk_fault import disk_faults_text


def check(context: Context) -> Finding:
    if context.hub is None:
        return not_asked("device disks")
    faults = context.hub.fleet().disk_faults
    if not faults:
        return Finding(check="device disks", state=State.OK, text="Each device can write its disk.")
    return Finding(
        check="device disks",
        state=State.WARNING,
        text=f"{counted(sum(faults.values()), 'device')} cannot store anything "
        f"({disk_faults_text(faults)}). They serve their releases and take no new one.",
        fix="edgefleet device list --disk-fault",
    )
