"""``edgefleet rollout watch``: follows one rollout to its end."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import click

from edgefleet.base.clock import SystemClock
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach, which_rollout
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import Screen, clean
from edgefleet.cli.values import DURATION, duration

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from edgefleet.client.hub import HubClient
    from edgefleet.protocol.rollout import RolloutView, Status


_COLOURS: Final = {"#": "green", "+": "cyan", "x": "red", ".": "dim"}


@verb(
    "watch",
    examples=(
        "edgefleet rollout watch",
        "edgefleet rollout watch ro-0h3k5v9x2mqa7cdt --timeout 2h --json",
    ),
    exits=(Exit.FAILED, Exit.WAITING),
)
@click.argument("rollout", metavar="[ROLLOUT]", required=False)
@click.option(
    "--bake", "through_bake", is_flag=True, help="Stay until the bake of a completed rollout ends."
)
@click.option("--timeout", type=DURATION, metavar="DURATION", help="Stop watching after this time.")
@pass_invocation
def watch(
    invocation: Invocation, rollout: str | None, timeout: float | None, *, through_bake: bool
) -> int:
    """Follow a rollout until it is completed, reverted, refused or halted.

    A rollout is completed when its last wave has passed; its bake goes on. With --bake the command
    stays until the bake has ended too, and fails if the release was rolled back in it.

    Shows the open wave as a bar (# healthy, + in trial, x failed, . to go), the counts, and what
    the rollout waits for: in place on a terminal, else one line per change. If the hub does not
    answer, the command waits for it. Ctrl-C does not affect the rollout.

    Default ROLLOUT: the only open one, else the newest.
    """
    with reach(invocation) as hub:
        found = which_rollout(hub, rollout, reading=True)
        return follow(invocation, hub, found, timeout_s=timeout, through_bake=through_bake)


def follow(
    invocation: Invocation,
    hub: HubClient,
    rollout_id: str,
    *,
    timeout_s: float | None = None,
    through_bake: bool = False,
) -> Exit:
    """Show the rollout until it ends, then print its last view. Returns the exit code."""
    from edgefleet.cli.rollout.render import rollout_lines
    from edgefleet.client.watch import NoAnswer, Observed
    from edgefleet.client.watch import watch as views_of

    last: RolloutView | None = None
    answers = True
    try:
        with _picture(invocation.screen) as picture:
            views = views_of(
                hub, rollout_id, clock=SystemClock(), timeout_s=timeout_s, through_bake=through_bake
            )
            for sight in views:
                match sight:
                    case Observed(view):
                        last, answers = view, True
                        picture.show(view)
                    case NoAnswer(since_s, error):
                        answers = False
                        picture.silent(since_s, error.message)
    except KeyboardInterrupt:
        invocation.screen.note(f"The rollout continues: edgefleet rollout watch {rollout_id}")
        raise
    if last is None:
        msg = "a watch yields the rollout at least once"
        raise AssertionError(msg)
    invocation.screen.answer(last, rollout_lines(last))
    return ending(last.status) if answers else Exit.NETWORK


def ending(status: Status) -> Exit:
    """The exit code for a rollout in this status."""
    from edgefleet.protocol.rollout import Status

    match status:
        case Status.COMPLETED:
            return Exit.DONE
        case Status.REVERTED | Status.REFUSED | Status.HALTED:
            return Exit.FAILED
        case Status.PLANNED | Status.RUNNING | Status.PAUSED | Status.REVERTING:
            return Exit.WAITING


class _Picture(Protocol):
    def show(self, view: RolloutView) -> None: ...

    def silent(self, since_s: float, text: str) -> None: ...


class _Lines:
    """One line per change, for pipes and logs."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown: object = None

    def show(self, view: RolloutView) -> None:
        from edgefleet.cli.rollout.render import counts, wave_bar, wave_name

        waits = tuple((wait.code, wait.devices) for wait in view.why.waits)
        key = (view.status, view.wave, counts(view.evidence), waits)
        if key != self._shown:
            self._shown = key
            self._screen.note(
                f"{view.status.value}  {wave_name(view)}  {wave_bar(view.evidence, 20)}  "
                f"{counts(view.evidence)}  {view.why.line}"
            )

    def silent(self, since_s: float, text: str) -> None:
        if self._shown != text:
            self._shown = text
            self._screen.note(f"No answer from the hub for {duration(since_s)}: {text}")


class _Terminal:
    """Updates in place, on a terminal."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._lines: list[Text] = []

    def show(self, view: RolloutView) -> None:
        from rich.console import Group
        from rich.text import Text

        from edgefleet.cli.rollout.render import counts, wave_bar, wave_name

        bar = Text()
        for char in wave_bar(view.evidence):
            bar.append(char, _COLOURS.get(char, ""))
        self._lines = [
            Text(clean(f"{view.id}  {view.model} {view.release}  {view.status.value}"), "bold"),
            Text.assemble(bar, clean(f"  {wave_name(view)}")),
            Text(counts(view.evidence)),
            Text(clean(view.why.line), "dim"),
        ]
        self._live.update(Group(*self._lines), refresh=True)

    def silent(self, since_s: float, text: str) -> None:
        from rich.console import Group
        from rich.text import Text

        notice = clean(f"No answer from the hub for {duration(since_s)}: {text}")
        self._live.update(Group(*self._lines, Text(notice, "yellow")), refresh=True)


@contextmanager
def _picture(screen: Screen) -> Generator[_Picture]:
    from rich.console import Console
    from rich.live import Live

    if not screen.live:
        yield _Lines(screen)
        return
    with Live(console=Console(file=sys.stderr), transient=True) as live:
        yield _Terminal(live)
