"""``edgefleet hook``: web hooks, which post events to a URL of the operator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from edgefleet.base.texts import counted
from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.exits import Exit
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import table
from edgefleet.cli.values import age, duration

if TYPE_CHECKING:
    from edgefleet.protocol.hooks import HookView


@verb(
    "add",
    examples=(
        "edgefleet hook add https://ci.example.org/fleet --kind 'rollout.*'",
        "edgefleet hook add https://ci.example.org/fleet --note 'page the shift' --json",
    ),
)
@click.argument("url", metavar="URL")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only events of this kind, such as rollout.halt or device.*; may be repeated.",
)
@click.option("--note", default="", help="Purpose of the hook.")
@pass_invocation
def add(invocation: Invocation, url: str, kinds: tuple[str, ...], note: str) -> None:
    """Add a web hook: the hub posts each event to URL, from now on.

    The answer has the key of the signatures, which is shown only now. docs/api.md shows how to
    check a signature.
    """
    from edgefleet.protocol.hooks import AddHook

    with reach(invocation) as hub:
        made = hub.hooks.add(AddHook(url=url, kinds=kinds, note=note))
    invocation.screen.answer(made, [made.view.id, made.secret])


@verb("list", examples=("edgefleet hook list", "edgefleet hook list --json"))
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the web hooks: how far each is behind, and why its last attempt failed."""
    with reach(invocation) as hub:
        found = hub.hooks.hooks()
    now = time.time()
    rows = [
        (
            one.id,
            one.url,
            " ".join(one.kinds) or "*",
            age(one.created_at, now),
            one.behind,
            one.dead_letters,
            _state(one, now),
            one.note,
        )
        for one in found.hooks
    ]
    head = ("hook", "url", "kinds", "added", "behind", "dead", "state", "note")
    invocation.screen.answer(found, table(head, rows))


def _state(hook: HookView, now: float) -> str:
    if not hook.enabled:
        return "disabled"
    missed = f", {hook.missed} missed" if hook.missed else ""
    if not hook.failure:
        return f"ok{missed}"
    again = "" if hook.retry_at is None else f" Next in {duration(max(0, hook.retry_at - now))}."
    return f"{hook.failure}{again}{missed}"


def _change(invocation: Invocation, hook_id: str, *, enabled: bool) -> None:
    from edgefleet.protocol.hooks import ChangeHook

    with reach(invocation) as hub:
        view = hub.hooks.change(hook_id, ChangeHook(enabled=enabled))
    invocation.screen.answer(view, [f"{view.id} is {'enabled' if view.enabled else 'disabled'}."])


@verb("enable", examples=("edgefleet hook enable 3f9a0c11d2",))
@click.argument("hook", metavar="HOOK")
@pass_invocation
def enable(invocation: Invocation, hook: str) -> None:
    """Enable a web hook: the events since it was disabled follow."""
    _change(invocation, hook, enabled=True)


@verb("disable", examples=("edgefleet hook disable 3f9a0c11d2",))
@click.argument("hook", metavar="HOOK")
@pass_invocation
def disable(invocation: Invocation, hook: str) -> None:
    """Disable a web hook: it delivers nothing until it is enabled."""
    _change(invocation, hook, enabled=False)


@verb("remove", examples=("edgefleet hook remove 3f9a0c11d2",))
@click.argument("hook", metavar="HOOK")
@pass_invocation
def remove(invocation: Invocation, hook: str) -> None:
    """Remove a web hook and its dead letters."""
    with reach(invocation) as hub:
        gone = hub.hooks.remove(hook)
    invocation.screen.answer(gone, [f"{gone.id} is removed."])


@verb(
    "dead",
    examples=("edgefleet hook dead 3f9a0c11d2", "edgefleet hook dead 3f9a0c11d2 --json"),
)
@click.argument("hook", metavar="HOOK")
@pass_invocation
def dead(invocation: Invocation, hook: str) -> None:
    """List the dead letters of a web hook: the events that could not be delivered."""
    with reach(invocation) as hub:
        found = hub.hooks.letters(hook)
    now = time.time()
    rows = [
        (one.number, one.event.id, one.event.kind, one.event.about, age(one.at, now), one.reason)
        for one in found.letters
    ]
    head = ("letter", "event", "kind", "about", "last attempt", "reason")
    invocation.screen.answer(found, table(head, rows))


@verb(
    "replay",
    examples=("edgefleet hook replay 3f9a0c11d2", "edgefleet hook replay 3f9a0c11d2 4 7 --json"),
    exits=(Exit.FAILED,),
)
@click.argument("hook", metavar="HOOK")
@click.argument("letters", metavar="[LETTER]...", nargs=-1, type=click.IntRange(1))
@pass_invocation
def replay(invocation: Invocation, hook: str, letters: tuple[int, ...]) -> Exit:
    """Deliver dead letters once more, oldest first, until one fails. Default: all of the hook."""
    from edgefleet.protocol.hooks import ReplayLetters

    with reach(invocation) as hub:
        found = hub.hooks.replay(hook, ReplayLetters(numbers=letters))
    rest = f"{counted(found.failed, 'letter')} left. {found.reason}" if found.failed else ""
    text = f"{counted(found.delivered, 'letter')} delivered. {rest}".rstrip()
    invocation.screen.answer(found, [text])
    return Exit.FAILED if found.failed else Exit.DONE
