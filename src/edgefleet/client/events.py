"""Reading the hub's stream of events, also over broken connections."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from edgefleet.base.errors import EdgefleetError, NetworkError, Retry
from edgefleet.client.hub import HubClient, Refusal
from edgefleet.client.limits import EVENT_LINE_BYTES, EVENTS_PAUSE_S
from edgefleet.protocol.events import Event
from edgefleet.protocol.wire import decode


class Position(NamedTuple):
    """After ``id`` the stream goes on. ``event`` is None if nothing wanted is there."""

    id: int
    event: Event | None


def read_events(chunks: Iterable[bytes]) -> Iterator[Position]:
    """The messages of a stream of server-sent events. Raises NetworkError ``answer_malformed``."""
    rest, data, id_ = b"", b"", -1
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > EVENT_LINE_BYTES:
            raise NetworkError("answer_malformed", "A line of the events is too long.")
        for line in lines:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data = value
            elif name == b"id" and value.isdigit() and len(value) <= 18:
                id_ = int(value)
            elif not line:
                if id_ >= 0:
                    found = decode(data, Event, code="answer_malformed") if data else None
                    yield Position(id_, found)
                data = b""


def follow_events(
    hub: HubClient,
    *,
    after: int | None = None,
    kinds: tuple[str, ...] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Events without end. After a broken connection the stream goes on where it was.

    Raises OperatorError ``events_gone`` if it was broken for so long that events are missing.
    """
    while True:
        try:
            for position, event in read_events(hub.events(after=after, kinds=kinds)):
                after = position
                if event is not None:
                    yield event
        except EdgefleetError as error:
            if after is None or not _passes(error):  # None: the hub never answered
                raise
        sleep(EVENTS_PAUSE_S)


def _passes(error: EdgefleetError) -> bool:
    """Whether the next connection may succeed: also after an answer of a proxy without the hub."""
    if error.code == "answer_malformed":
        return isinstance(error.__cause__, Refusal) and error.__cause__.status >= 500
    return error.retry is Retry.LATER
