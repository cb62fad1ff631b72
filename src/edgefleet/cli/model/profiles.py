"""``edgefleet model profiles``: the hardware classes and the limits of their variants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.command import verb
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import table
from edgefleet.cli.values import FILE
from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from edgefleet.optimize.profiles import Profile
    from edgefleet.protocol.device import Facts


_UNKNOWN = "unknown"


class ProfileRow(Wire, frozen=True, kw_only=True):
    """A profile, see ``edgefleet.optimize.profiles``. ``own``: it is from a file of the user."""

    name: str
    runtimes: tuple[str, ...]
    precision: str
    precisions: tuple[str, ...]
    activations: str
    max_batch: int
    memory_limit_mib: int
    threads: int
    arch: tuple[str, ...]
    summary: str
    untested: str
    own: bool


class Profiles(Wire, frozen=True, kw_only=True):
    """``fitting`` are the names of those that the device can run, the best first."""

    profiles: tuple[ProfileRow, ...]
    fitting: tuple[str, ...]


@verb(
    "profiles",
    hub=False,
    examples=(
        "edgefleet model profiles",
        "edgefleet model profiles --profiles ./our-profiles --json",
        "edgefleet model profiles --for pi.json",
    ),
)
@click.option(
    "--profiles",
    "own",
    type=click.Path(path_type=Path, exists=True),
    metavar="FOLDER",
    help="A folder of profiles of your own, or one file. They replace those of the same name.",
)
@click.option(
    "--for",
    "device",
    type=FILE,
    help='Facts of a device as JSON, such as {"runtimes": ["litert"], "arch": "aarch64", '
    '"memory_mib": 4096}. Default: those of this machine.',
)
@pass_invocation
def profiles(invocation: Invocation, own: Path | None, device: Path | None) -> None:
    """List the hardware classes, built-in and your own.

    Your own are TOML files in ~/.config/edgefleet/profiles, or in the folder of --profiles. Those
    that this machine can run are marked, or those that the device of --for can: the runtime is
    installed, and machine and memory fit. The last line names the best one: set it as the
    `profile` of the agent.
    """
    from edgefleet.agent.agent_process import facts
    from edgefleet.optimize.profiles import PROFILES
    from edgefleet.optimize.profiles.reading import user_folder, with_own
    from edgefleet.optimize.profiles.selection import fitting

    found = with_own(PROFILES, own, user_folder())
    known = facts("") if device is None else _facts(device)
    names = tuple(one.name for one in fitting(known, found.values()))
    rows = tuple(_row(one, own=PROFILES.get(one.name) != one) for one in found.values())
    answer = Profiles(profiles=rows, fitting=names)
    invocation.screen.answer(answer, _lines(answer))


def _facts(path: Path) -> Facts:
    """The facts in a file. Raises OperatorError ``bad_request`` with the field."""
    from edgefleet.protocol.device import Facts
    from edgefleet.protocol.wire import decode, encode

    given = decode(path.read_bytes(), dict[str, object])
    return decode(encode({"profile": _UNKNOWN, "agent_version": _UNKNOWN, **given}), Facts)


def _row(profile: Profile, *, own: bool) -> ProfileRow:
    return ProfileRow(
        name=profile.name,
        runtimes=profile.runtimes,
        precision=profile.precision,
        precisions=profile.precisions,
        activations=profile.activations,
        max_batch=profile.max_batch,
        memory_limit_mib=profile.memory_limit_mib,
        threads=profile.threads,
        arch=profile.arch,
        summary=profile.summary,
        untested=profile.untested,
        own=own,
    )


def _lines(answer: Profiles) -> list[str]:
    head = ("profile", "runtimes", "precisions", "activations", "batch", "memory", "device")
    rows = [
        (
            one.name + (" (own)" if one.own else ""),
            ", ".join(one.runtimes),
            ", ".join(one.precisions),
            one.activations,
            one.max_batch,
            f"{one.memory_limit_mib} MiB",
            "fits" if one.name in answer.fitting else "-",
        )
        for one in answer.profiles
    ]
    best = f"The best for it is {answer.fitting[0]}." if answer.fitting else "No profile fits it."
    return [*table(head, rows), "", best]
