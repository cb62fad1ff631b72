"""``edgefleet fleet``: all devices at once, in constant size."""

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person import person_options
from edgefleet.cli.screen import facts, table
from edgefleet.protocol.rollout import Freeze


@verb("show", examples=("edgefleet fleet show", "edgefleet fleet show --json"))
@pass_invocation
def show(invocation: Invocation) -> None:
    """Show the fleet now.

    Counts of devices by profile, by phase and by the release that they run. A device is online
    while it checks in.
    """
    with reach(invocation) as hub:
        fleet = hub.fleet()
    lines = facts(
        [
            ("devices", f"{fleet.total}, {fleet.online} online"),
            ("profiles", ", ".join(f"{name} {n}" for name, n in fleet.by_profile.items())),
            ("phases", ", ".join(f"{name} {n}" for name, n in fleet.by_phase.items())),
            *([("frozen", "yes: nobody begins anything")] if fleet.frozen else []),
            ("rollouts open", ", ".join(fleet.rollouts_open)),
        ]
    )
    rows = [
        (model, release, count)
        for model, releases in fleet.on_release.items()
        for release, count in releases.items()
    ]
    invocation.screen.answer(fleet, [*lines, "", *table(("model", "release", "online"), rows)])


@verb(
    "freeze",
    examples=("edgefleet fleet freeze", "edgefleet fleet freeze --note 'trade fair' --json"),
)
@person_options
@pass_invocation
def freeze(invocation: Invocation, person: str, note: str) -> None:
    """Let no device begin anything, whatever the rollouts say.

    Gates go on judging, and what is taken back still goes back. It stays so until
    `edgefleet fleet thaw`, also over a restart of the hub.
    """
    _say(invocation, Freeze(frozen=True, person=person, note=note))


@verb("thaw", examples=("edgefleet fleet thaw", "edgefleet fleet thaw --person alice --json"))
@person_options
@pass_invocation
def thaw(invocation: Invocation, person: str, note: str) -> None:
    """Let devices begin again after a freeze."""
    _say(invocation, Freeze(frozen=False, person=person, note=note))


def _say(invocation: Invocation, freeze: Freeze) -> None:
    with reach(invocation) as hub:
        said = hub.freeze(freeze)
    stands = "is frozen: nobody begins anything" if said.frozen else "is not frozen"
    invocation.screen.answer(said, [f"The fleet {stands}."])
