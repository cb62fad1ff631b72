"""``edgefleet fleet``: a summary of all devices, and the freeze."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_options
from edgefleet.cli.screen import facts, table

if TYPE_CHECKING:
    from edgefleet.protocol.rollout import Freeze

_UNKNOWN = "the hub made their credentials; `edgefleet hub accept-restored` lets them enrol again"


@verb("show", examples=("edgefleet fleet show", "edgefleet fleet show --json"))
@pass_invocation
def show(invocation: Invocation) -> None:
    """Show the fleet now.

    Counts devices by profile, by phase and, for each model, by release. A device is online while it
    checks in.
    """
    from edgefleet.protocol.disk_fault import disk_faults_text

    with reach(invocation) as hub:
        fleet = hub.fleet()
    faulty = (
        f"{sum(fleet.disk_faults.values())}: {disk_faults_text(fleet.disk_faults)}; "
        "see `edgefleet device list --disk-fault`"
    )
    lines = facts(
        [
            ("devices", f"{fleet.total}, {fleet.online} online"),
            ("profiles", ", ".join(f"{name} {n}" for name, n in fleet.by_profile.items())),
            ("phases", ", ".join(f"{name} {n}" for name, n in fleet.by_phase.items())),
            (
                "models",
                ", ".join(f"{model} {sum(n.values())}" for model, n in fleet.on_release.items()),
            ),
            *(
                [("unknown set", f"{fleet.unknown_sets}: the table of release sets is full")]
                if fleet.unknown_sets
                else []
            ),
            *(
                [("serving", f"{fleet.serving_down} down, {fleet.serving_unstable} unstable")]
                if fleet.serving_down or fleet.serving_unstable
                else []
            ),
            *([("disk faults", faulty)] if fleet.disk_faults else []),
            *(
                [("quarantined", f"{fleet.quarantined}: see `edgefleet device list --quarantined`")]
                if fleet.quarantined
                else []
            ),
            *(
                [("copied", f"{fleet.copied}: see `edgefleet device list --copied`")]
                if fleet.copied
                else []
            ),
            *(
                [("ahead of the hub", f"{fleet.ahead}: see `edgefleet device list --ahead`")]
                if fleet.ahead
                else []
            ),
            *(
                [("not known", f"{', '.join(fleet.unknown_devices)}: {_UNKNOWN}")]
                if fleet.unknown_devices
                else []
            ),
            *([("frozen", "yes: no device starts a release")] if fleet.frozen else []),
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
    """Freeze the fleet: no device starts a release.

    Gates continue to judge, and rollbacks continue. The freeze lasts until `edgefleet fleet thaw`,
    also after a restart of the hub.
    """
    from edgefleet.protocol.rollout import Freeze

    _set_freeze(invocation, Freeze(frozen=True, person=person, note=note))


@verb("thaw", examples=("edgefleet fleet thaw", "edgefleet fleet thaw --person alice --json"))
@person_options
@pass_invocation
def thaw(invocation: Invocation, person: str, note: str) -> None:
    """Thaw the fleet: devices may start releases again."""
    from edgefleet.protocol.rollout import Freeze

    _set_freeze(invocation, Freeze(frozen=False, person=person, note=note))


def _set_freeze(invocation: Invocation, freeze: Freeze) -> None:
    with reach(invocation) as hub:
        answer = hub.freeze(freeze)
    status = "frozen: no device starts a release" if answer.frozen else "not frozen"
    invocation.screen.answer(answer, [f"The fleet is {status}."])
