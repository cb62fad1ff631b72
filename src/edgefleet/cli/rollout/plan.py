"""``edgefleet rollout plan``: a release, a fleet, waves, and all that bounds them."""

import tomllib
from pathlib import Path
from typing import Any

import click

from edgefleet.base.errors import OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.rollout.dry_run import trial_lines, try_plan
from edgefleet.cli.rollout.options import knob_options, spec_of
from edgefleet.cli.rollout.render import rollout_lines
from edgefleet.cli.rollout.watch import follow
from edgefleet.protocol.rollout import Command, Verb


@verb(
    "plan",
    examples=(
        "edgefleet rollout plan --model digits --release 2",
        "edgefleet rollout plan --model digits --release 2 --start --watch",
        "edgefleet rollout plan --model digits --release 3 --waves 5,25,100 --soak 30m",
        "edgefleet rollout plan --model digits --release 3 --wave 50 --wave site=lyon",
        "edgefleet rollout plan --file careful.toml --release 3",
        "edgefleet rollout plan --model digits --release 3 --exposure-first 3 --dry-run",
        "edgefleet rollout plan --model digits --release 3 --selector 'site=lyon' --json",
    ),
    exits=(Exit.FAILED,),
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The plan as TOML, in the words of docs/rollouts.md; options go before it.",
)
@knob_options
@click.option("--start", is_flag=True, help="Start it at once.")
@click.option("--watch", is_flag=True, help="Start it and follow it to its end.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Plan nothing: show cuts, bytes, duration and exposure, from a simulation of this plan.",
)
@pass_invocation
def plan(
    invocation: Invocation,
    /,
    *,
    file: Path | None,
    start: bool,
    watch: bool,
    dry_run: bool,
    **said: Any,
) -> int:
    """Plan a rollout in waves.

    The hub checks the plan against the fleet (a variant for each profile, no other rollout on the
    same devices, a release that was not taken back before) and keeps it. Nothing reaches a device
    before `edgefleet rollout start`, or --start.

    Behind each wave stands a gate. It passes when enough devices are healthy for the soak time,
    and takes the release back from every device when the evidence says that it is bad. Inside a
    wave, no more devices are in trial than the evidence so far allows.

    What is not said is as in the file, else the default. docs/rollouts.md explains every knob.
    """
    spec = spec_of(said, None if file is None else read_plan(file))
    with reach(invocation) as hub:
        if dry_run:
            found = hub.plan_fleet(spec)
            release = hub.release(spec.model, spec.release)
            tried = try_plan(spec, found, release.manifest)
            invocation.screen.answer(tried, trial_lines(tried))
            return Exit.DONE
        view = hub.plan(spec)
        if start or watch:
            view = hub.command(view.id, Verb.START, Command(generation=view.generation))
        if watch:
            return follow(invocation, hub, view.id)
    invocation.screen.answer(view, rollout_lines(view))
    if not (start or invocation.json):
        invocation.screen.note(f"Next: edgefleet rollout start {view.id} --watch")
    return Exit.DONE


def read_plan(file: Path) -> dict[str, Any]:
    """The file's tables. Raises OperatorError ``setting_invalid`` when it is no TOML."""
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OperatorError(
            "setting_invalid", f"{file} cannot be read: {error}.", field="--file"
        ) from error
