"""``edgefleet rollout list``, ``show`` and ``why``."""

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach, which_rollout
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import table
from edgefleet.cli.values import age


@verb(
    "list",
    examples=(
        "edgefleet rollout list",
        "edgefleet rollout list --model detector",
        "edgefleet rollout list --json",
    ),
)
@click.option("--model", help="Only rollouts of this model.")
@pass_invocation
def list_(invocation: Invocation, model: str | None) -> None:
    """List the newest 100 rollouts, newest first."""
    from edgefleet.cli.rollout.render import wave_name

    with reach(invocation) as hub:
        found = hub.rollouts(model=model)
    rows = [
        (
            view.id,
            view.model,
            view.release,
            view.previous,
            view.status.value,
            wave_name(view),
            view.exposed,
            age(view.created_at, view.why.at),
            view.reason,
        )
        for view in found.rollouts
    ]
    head = ("rollout", "model", "release", "from", "status", "wave", "exposed", "planned", "reason")
    invocation.screen.answer(found, table(head, rows))


@verb(
    "show",
    examples=("edgefleet rollout show", "edgefleet rollout show ro-0h3k5v9x2mqa7cdt --json"),
)
@click.argument("rollout", metavar="[ROLLOUT]", required=False)
@pass_invocation
def show(invocation: Invocation, rollout: str | None) -> None:
    """Show one rollout: its gate, its waves with verdicts, and what it waits for.

    Default ROLLOUT: the only open one, else the newest.
    """
    from edgefleet.cli.rollout.render import rollout_lines

    with reach(invocation) as hub:
        view = hub.rollout(which_rollout(hub, rollout, reading=True))
    invocation.screen.answer(view, rollout_lines(view))


@verb("why", examples=("edgefleet rollout why", "edgefleet rollout why --json"))
@click.argument("rollout", metavar="[ROLLOUT]", required=False)
@pass_invocation
def why(invocation: Invocation, rollout: str | None) -> None:
    """Explain what a rollout waits for.

    Shows each wait with its start, its end if known, and the first devices concerned.
    Default ROLLOUT: the only open one, else the newest.
    """
    from edgefleet.cli.wait_report import wait_lines

    with reach(invocation) as hub:
        report = hub.why_rollout(which_rollout(hub, rollout, reading=True))
    invocation.screen.answer(report, wait_lines(report))
