"""``edgefleet rollout start|pause|resume|advance|halt|revert|approve``: steering a rollout."""

from collections.abc import Callable

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach, which_rollout
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person import person_options
from edgefleet.cli.rollout.render import rollout_lines
from edgefleet.cli.rollout.watch import follow
from edgefleet.protocol.rollout import ApproveRequest, Command, Verb


def _steering(word: Verb, text: str) -> click.Command:
    """The command of one verb; ``text`` is its page."""

    def steer(
        invocation: Invocation,
        rollout: str | None,
        note: str,
        generation: int | None,
        watch: bool,
    ) -> int:
        with reach(invocation) as hub:
            found = which_rollout(hub, rollout, reading=False)
            view = hub.command(found, word, Command(generation=generation, note=note))
            if watch:
                return follow(invocation, hub, view.id)
        invocation.screen.answer(view, rollout_lines(view))
        return Exit.DONE

    steer.__doc__ = f"{text}\n\nWithout ROLLOUT the only open one is meant."
    shape: Callable[..., int] = pass_invocation(steer)
    for option in (
        click.option("--watch", is_flag=True, help="Then follow it to its end."),
        click.option(
            "--generation",
            type=click.IntRange(0),
            metavar="N",
            help="Refuse unless the rollout still is at this generation.",
        ),
        click.option("--note", default="", help="Why, for the audit log."),
        click.argument("rollout", metavar="[ROLLOUT]", required=False),
    ):
        shape = option(shape)
    name = word.value
    example = f"edgefleet rollout {name}"
    return verb(
        name,
        examples=(example, f"{example} ro-0h3k5v9x2mqa7cdt --note 'agreed on call' --json"),
        exits=(Exit.FAILED,),
    )(shape)


start = _steering(
    Verb.START,
    "Start a planned rollout.\n\nIts first wave opens now; the later ones open by themselves as "
    "each wave's gate passes.",
)
pause = _steering(
    Verb.PAUSE,
    "Open no wave until it is resumed.\n\nDevices inside the open wave go on, and the gate still "
    "takes everything back when it fails.",
)
resume = _steering(Verb.RESUME, "Let a paused rollout go on.")
advance = _steering(
    Verb.ADVANCE,
    "Open the next wave without waiting for the gate to pass.\n\nA human's decision against an "
    "undecided gate: it is written to the audit log with --note.",
)
halt = _steering(
    Verb.HALT,
    "Expose no further device.\n\nDevices that have the release keep it; `edgefleet rollout "
    "revert` takes it back.",
)
revert = _steering(
    Verb.REVERT,
    "Take the release back everywhere.\n\nEvery device that runs it is offered the previous "
    "release. It is never offered to this fleet again.",
)


@verb(
    "approve",
    examples=(
        "edgefleet rollout approve",
        "edgefleet rollout approve ro-0h3k5v9x2mqa7cdt --person alice --json",
    ),
)
@click.argument("rollout", metavar="[ROLLOUT]", required=False)
@person_options
@pass_invocation
def approve(invocation: Invocation, rollout: str | None, person: str, note: str) -> None:
    """Agree with a rollout, or with its open wave.

    A plan may want one person or two before any device begins (--approval-people), once or for
    each wave. Without ROLLOUT the only open one is meant.
    """
    with reach(invocation) as hub:
        found = which_rollout(hub, rollout, reading=False)
        view = hub.approve(found, ApproveRequest(person=person, note=note))
    invocation.screen.answer(view, rollout_lines(view))
