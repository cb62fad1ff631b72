"""``edgefleet device label``, ``rename``, ``remove``, ``clear-copy``: changes of single devices."""

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_options
from edgefleet.cli.values import LABEL
from edgefleet.protocol.device_commands import ClearCopy, LabelDevice, RemoveDevice, RenameDevice
from edgefleet.protocol.operator import DeviceView


@verb(
    "label",
    examples=(
        "edgefleet device label cam-0419 site=lyon tier=gold",
        "edgefleet device label cam-0419 site- --note 'moved' --json",
    ),
)
@click.argument("device", metavar="DEVICE")
@click.argument("changes", metavar="KEY=VALUE|KEY-...", nargs=-1, required=True)
@person_options
@pass_invocation
def label(
    invocation: Invocation, device: str, changes: tuple[str, ...], person: str, note: str
) -> None:
    """Set labels on a device, and remove labels that were set: KEY-.

    A label that is set here overrides the label that the device reports by itself (`edgefleet agent
    run --label`). Once it is removed, the label of the device counts again.

    A rollout that runs takes the change into account at once. A device that has started the release
    stays in the rollout. A device that has not started it leaves the rollout if the selector
    matches it no more, and joins the open wave if the selector matches it now and its position is
    in the cut.
    """
    given: dict[str, str] = {}
    unset: list[str] = []
    for change in changes:
        if len(change) > 1 and change.endswith("-") and "=" not in change:
            key = change[:-1]
            is_named = key in given or key in unset
            unset.append(key)
        else:
            key, value = LABEL.convert(change, None, None)
            is_named = key in given or key in unset
            given[key] = value
        if is_named:
            raise click.UsageError(f"The label {key} is named twice.")
    request = LabelDevice(set=given, unset=tuple(unset), person=person, note=note)
    with reach(invocation) as hub:
        view = hub.label_device(device, request)
    invocation.screen.answer(view, [f"{view.name} has the labels {label_text(view)}."])


def label_text(view: DeviceView) -> str:
    """The labels that count, each with its owner."""
    found: list[str] = []
    for key, value in sorted(view.labels.items()):
        own = view.own_labels.get(key)
        if key not in view.set_labels:
            owner = "device"
        elif own is not None and own != value:
            owner = f"operator; the device reports {own}"
        else:
            owner = "operator"
        found.append(f"{key}={value} ({owner})")
    return ", ".join(found) or "none"


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


@verb(
    "clear-copy",
    examples=(
        "edgefleet device clear-copy cam-0419",
        "edgefleet device clear-copy cam-0419 --note 'the old card is erased' --json",
    ),
)
@click.argument("device", metavar="DEVICE")
@person_options
@pass_invocation
def clear_copy(invocation: Invocation, device: str, person: str, note: str) -> None:
    """Clear a copied device: one agent is left that uses its credential.

    The agent that checks in next gets new releases again. If another one of the known agents is
    still at work, the device is copied again as soon as both have checked in.
    """
    with reach(invocation) as hub:
        view = hub.clear_copy(device, ClearCopy(person=person, note=note))
    invocation.screen.answer(view, [f"{view.name} is no longer copied. {view.line}"])
