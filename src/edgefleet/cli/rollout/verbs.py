"""``edgefleet rollout start|pause|resume|advance|halt|revert|approve``: control a rollout."""

from collections.abc import Callable

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach, which_rollout
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.person_options import person_options


def _control(word: str, text: str) -> click.Command:
    """The command of one verb; ``text`` is its help."""

    def control(
        invocation: Invocation,
        rollout: str | None,
        note: str,
        generation: int | None,
        watch: bool,
    ) -> int:
        from edgefleet.cli.rollout.render import rollout_lines
        from edgefleet.cli.rollout.watch import follow
        from edgefleet.protocol.rollout import Command, Verb

        with reach(invocation) as hub:
            found = which_rollout(hub, rollout, reading=False)
            view = hub.command(found, Verb(word), Command(generation=generation, note=note))
            if watch:
                return follow(invocation, hub, view.id)
        invocation.screen.answer(view, rollout_lines(view))
        return Exit.DONE

    control.__doc__ = f"{text}\n\nDefault ROLLOUT: the only open one."
    shape: Callable[..., int] = pass_invocation(control)
    for option in (
        click.option("--watch", is_flag=True, help="Then watch it until it ends."),
        click.option(
            "--generation",
            type=click.IntRange(0),
            metavar="N",
            help="Refuse unless the rollout has this generation (optimistic lock).",
        ),
        click.option("--note", default="", help="Reason, for the audit log."),
        click.argument("rollout", metavar="[ROLLOUT]", required=False),
    ):
        shape = option(shape)
    example = f"edgefleet rollout {word}"
    return verb(
        word,
        examples=(example, f"{example} ro-0h3k5v9x2mqa7cdt --note 'agreed on call' --json"),
        exits=(Exit.FAILED,),
    )(shape)


start = _control(
    "start",
    "Start a planned rollout.\n\nThe first wave opens now; each later wave opens when the gate of "
    "the wave before it passes.",
)
pause = _control(
    "pause",
    "Start no more devices until it is resumed.\n\nTrials continue. If the gate fails, it still "
    "rolls back every device.",
)
resume = _control("resume", "Resume a paused or halted rollout.")
advance = _control(
    "advance",
    "Open the next wave without waiting for the gate, or end the bake.\n\nUse it if the verdict is "
    "inconclusive. "
    "The audit log records the decision with --note.",
)
halt = _control(
    "halt",
    "Stop a rollout; devices keep the release.\n\nNo more devices start. `edgefleet rollout "
    "revert` rolls back the devices that have the release.",
)
revert = _control(
    "revert",
    "Roll back every device that runs the release.\n\nEach device is offered the previous release. "
    "The rolled-back release cannot be planned for these devices again.",
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
    """Approve a rollout, or its open wave.

    A plan may require the approval of one or two people (--approval-people), once or for each wave,
    before any device starts. Two people are two users (`edgefleet user add NAME --role approver`),
    by whichever of their tokens; the user who planned the rollout cannot approve it. --person is
    read with the operator token alone, and for a plan that one person approves.
    Default ROLLOUT: the only open one.
    """
    from edgefleet.cli.rollout.render import rollout_lines
    from edgefleet.protocol.rollout import ApproveRequest

    with reach(invocation) as hub:
        found = which_rollout(hub, rollout, reading=False)
        view = hub.approve(found, ApproveRequest(person=person, note=note))
    invocation.screen.answer(view, rollout_lines(view))
