"""``edgefleet device rename`` and ``remove``: changes of single devices."""

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_options
from edgefleet.protocol.device_commands import RemoveDevice, RenameDevice


@verb(
    "rename",
    examples=(
        "edgefleet device rename cam-0419 door-north",
        "edgefleet device rename cam-0419 door-north --note 'moved' --json",
    ),
)
@click.argument("device", metavar="DEVICE")
@click.argument("name", metavar="NAME")
@person_options
@pass_invocation
def rename(invocation: Invocation, device: str, name: str, person: str, note: str) -> None:
    """Give a device another name.

    The device keeps its credential, its reports and its place in the waves of rollouts. The audit
    log has both names.
    """
    with reach(invocation) as hub:
        view = hub.rename_device(device, RenameDevice(name=name, person=person, note=note))
    invocation.screen.answer(view, [f"{device} is named {view.name} now."])


@verb(
    "remove",
    examples=(
        "edgefleet device remove cam-0419",
        "edgefleet device remove cam-0419 --note 'stolen' --json",
    ),
)
@click.argument("device", metavar="DEVICE")
@person_options
@pass_invocation
def remove(invocation: Invocation, device: str, person: str, note: str) -> None:
    """Remove a device from the fleet.

    The device leaves every count and every wave, and its reports leave the evidence of the gates.
    Its credential is valid no more. The device goes on to serve its release. Its name is free: a
    device with a new claim may use it.
    """
    with reach(invocation) as hub:
        removed = hub.remove_device(device, RemoveDevice(person=person, note=note))
    lines = [f"{removed.name} is removed. Its credential is valid no more."]
    lines += [
        f"Rollout {rollout} counts it no more; its last report there was: {report}."
        for rollout, report in removed.reports.items()
    ]
    invocation.screen.answer(removed, lines)
