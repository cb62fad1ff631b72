"""A disk that cannot be written: what the core starts, and what waits.

The confirmed releases are served as before, a rollback works, and check-ins go on without outcomes,
as an outcome must not be reported before it is stored. Nothing new begins: a download is deferred,
an admitted start waits, and an interrupted trial is repeated once its attempt counter can be stored
(``ModelSoft.waits_for_disk``); until then the confirmed release is served.
"""

from edgefleet.agent.boot import resume_trial
from edgefleet.agent.event import DiskChecked
from edgefleet.agent.step_context import DeviceContext
from edgefleet.agent.table import IN_TRIAL
from edgefleet.agent.typed_replace import replace


def on_disk_checked(device: DeviceContext, event: DiskChecked) -> None:
    """Report the change to the hub. Go on with the work and the trials that waited for a disk."""
    device.forgettable(disk_fault=event.fault, checkin_at=device.now)
    if device.state.facts is not None:
        facts = replace(device.state.facts, disk_fault=event.fault)
        device.keep(facts=facts, facts_known=False)
    if event.fault:
        return
    for name, soft in tuple(device.soft_models.items()):
        if soft.work_at is not None:
            device.model(name).forgettable(work_at=device.now)
        if soft.waits_for_disk:
            context = device.model(name)
            context.forgettable(waits_for_disk=False)
            if context.state.stage in IN_TRIAL:
                resume_trial(context)
