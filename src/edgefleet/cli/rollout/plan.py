"""``edgefleet rollout plan``: a release, a fleet, waves, and their limits."""

from pathlib import Path
from typing import Any

import click

from edgefleet.base.errors import OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.rollout.options import knob_options, spec_of
from edgefleet.cli.values import FILE


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
    type=FILE,
    help="The plan as TOML (docs/rollouts.md); options take precedence.",
)
@knob_options
@click.option("--start", is_flag=True, help="Start it immediately.")
@click.option("--watch", is_flag=True, help="Start it and watch it until it ends.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Plan nothing: simulate the plan and show cuts, bytes, duration and exposure.",
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
    **knobs: Any,
) -> int:
    """Plan a rollout in waves.

    The hub checks the plan against the fleet (a variant for each profile, no other rollout of the
    model on the same devices, no release that was rolled back before, no displaced model) and
    stores it. No device gets the release
    before `edgefleet rollout start`, or --start.

    The first wave is the canary. A gate judges each wave: it passes if enough devices stay healthy
    for the soak time, and rolls back every device if the release is bad. Inside a wave, admission
    control limits how many devices are in trial.

    Options take precedence over the file, and the file over defaults. docs/rollouts.md explains
    every option.
    """
    from edgefleet.cli.rollout.dry_run import trial_lines, try_plan
    from edgefleet.cli.rollout.render import rollout_lines
    from edgefleet.cli.rollout.watch import follow
    from edgefleet.protocol.rollout import Command, Verb

    spec = spec_of(knobs, None if file is None else read_plan(file))
    with reach(invocation) as hub:
        if dry_run:
            found = hub.plan_fleet(spec)
            release = hub.release(spec.model, spec.release)
            tried = try_plan(spec, found, release.manifest)
            invocation.screen.answer(tried, trial_lines(tried, spec.model, spec.release))
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
    """The file's tables. Raises OperatorError ``setting_invalid`` if it is not TOML."""
    import tomllib

    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OperatorError(
            "setting_invalid", f"{file} cannot be read: {error}.", field="--file"
        ) from error
