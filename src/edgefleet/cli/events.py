"""``edgefleet events``: what happened, and what happens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from edgefleet.cli.command import verb
from edgefleet.cli.connect import reach
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import clean

if TYPE_CHECKING:
    from edgefleet.client.hub import HubClient
    from edgefleet.protocol.events import Event, EventPage

_SHOWN: Final = 50


@verb(
    "events",
    examples=(
        "edgefleet events",
        "edgefleet events --kind 'rollout.*' --kind device.quarantine --follow",
        "edgefleet events --after 1200 --json",
    ),
)
@click.option(
    "--after",
    type=click.IntRange(0),
    metavar="ID",
    help="Only events after this one. Default: the newest 50; with --follow, from now on.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only of this kind, such as rollout.halt or device.*; may be repeated.",
)
@click.option("--follow", is_flag=True, help="Wait for further events, until Ctrl-C.")
@pass_invocation
def events(
    invocation: Invocation, /, after: int | None, kinds: tuple[str, ...], *, follow: bool
) -> None:
    """List what happened, oldest first: changes of rollouts, devices, releases and people.

    The events are the newest entries of the audit log. With --follow each event is shown when its
    change is durable, one line each, also with --json. After a broken connection the list goes on
    where it was. Times are UTC.
    """
    with reach(invocation) as hub:
        if follow:
            _follow(invocation, hub, after, kinds)
            return
        page = _page(hub, after, kinds)
    invocation.screen.answer(page, map(_line, page.events))


def _follow(
    invocation: Invocation, hub: HubClient, after: int | None, kinds: tuple[str, ...]
) -> None:
    from edgefleet.client.events import follow_events
    from edgefleet.protocol.wire import encode

    for event in follow_events(hub, after=after, kinds=kinds):
        click.echo(encode(event).decode() if invocation.json else clean(_line(event)))


def _page(hub: HubClient, after: int | None, kinds: tuple[str, ...]) -> EventPage:
    from edgefleet.client.events import read_events
    from edgefleet.protocol.events import EventPage

    if after is None:
        newest = hub.audit(limit=1).entries
        after = max(0, newest[0].id - _SHOWN) if newest else 0
    found = list(read_events(hub.events(after=after, kinds=kinds, follow=False)))
    return EventPage(
        events=tuple(one.event for one in found if one.event is not None), last=found[-1].id
    )


def _line(event: Event) -> str:
    at = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{event.id}  {at}  {event.kind}  {event.about}  {event.actor}  {event.detail}".rstrip()
