"""``edgefleet model profiles``: the hardware classes and the limits of their variants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.command import verb
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import table
from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from edgefleet.optimize.profiles import Profile


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
    """``fitting`` are the names of those that this machine can run, the best first."""

    profiles: tuple[ProfileRow, ...]
    fitting: tuple[str, ...]


@verb(
    "profiles",
    hub=False,
    examples=(
        "edgefleet model profiles",
        "edgefleet model profiles --profiles ./our-profiles --json",
    ),
)
@click.option(
    "--profiles",
    "own",
    type=click.Path(path_type=Path, exists=True),
    metavar="FOLDER",
    help="A folder of profiles of your own, or one file. They replace those of the same name.",
)
@pass_invocation
def profiles(invocation: Invocation, own: Path | None) -> None:
    """List the hardware classes, built-in and your own.

    Your own are TOML files in ~/.config/edgefleet/profiles, or in the folder of --profiles. Those
    that this machine can run are marked: the runtime is installed, and machine and memory fit.
    """
    from edgefleet.agent.agent_process import facts
    from edgefleet.optimize.profiles import PROFILES
    from edgefleet.optimize.profiles.reading import user_folder, with_own
    from edgefleet.optimize.profiles.selection import fitting

    found = with_own(PROFILES, own, user_folder())
    names = tuple(one.name for one in fitting(facts(""), found.values()))
    rows = tuple(_row(one, own=PROFILES.get(one.name) != one) for one in found.values())
    answer = Profiles(profiles=rows, fitting=names)
    invocation.screen.answer(answer, _lines(answer))


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
    head = ("profile", "runtimes", "precisions", "activations", "batch", "memory", "this machine")
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
    return table(head, rows)
