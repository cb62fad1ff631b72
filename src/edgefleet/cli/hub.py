"""``edgefleet hub``: the state of the hub itself."""

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_options
from edgefleet.protocol.restored import AcceptRestored


@verb(
    "accept-restored",
    examples=(
        "edgefleet hub accept-restored",
        "edgefleet hub accept-restored --note 'backup of Monday' --json",
    ),
)
@person_options
@pass_invocation
def accept_restored(invocation: Invocation, person: str, note: str) -> None:
    """Accept the state of a hub that was restored from an older copy.

    Until then, nothing is offered to devices that run what the hub has no record of. From then on,
    they are offered what the rollouts of the hub give them, which may be an older release. A device
    that runs the release of a rollout of the hub is recorded as confirmed there. A device that the
    hub does not know, and whose credential it made, enrols again by itself.

    See the devices first: `edgefleet device list --ahead`. To keep what they run, publish the
    release again and roll it out to them before.
    """
    with reach(invocation) as hub:
        accepted = hub.accept_restored(AcceptRestored(person=person, note=note))
    lines = [f"Accepted. Devices that were ahead of the hub: {accepted.devices}."]
    if accepted.unknown:
        lines.append(f"Devices that may enrol again: {', '.join(accepted.unknown[:10])}.")
    invocation.screen.answer(accepted, lines)
