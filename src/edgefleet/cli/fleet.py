"""``edgefleet fleet``: all devices at once, in constant size."""

from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.reach import reach
from edgefleet.cli.screen import facts, table
from edgefleet.cli.verb import verb


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
            ("rollouts open", ", ".join(fleet.rollouts_open)),
        ]
    )
    rows = [
        (model, release, count)
        for model, releases in fleet.on_release.items()
        for release, count in releases.items()
    ]
    invocation.screen.answer(fleet, [*lines, "", *table(("model", "release", "online"), rows)])
