"""The event log as a stream of server-sent events (html.spec.whatwg.org, "Server-sent events").

A stream keeps a position and one page of events. A reader that does not take a page within
``STREAM_SEND_S`` is cut; it comes back with ``Last-Event-ID`` and misses nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgefleet.base.clock import Clock
from edgefleet.base.errors import EdgefleetError, OperatorError, Overloaded
from edgefleet.hub.event_log import EventLog
from edgefleet.hub.limits import (
    EVENT_STREAMS,
    EVENT_STREAMS_OF_ONE,
    STREAM_CHECK_S,
    STREAM_HEARTBEAT_S,
    STREAM_RETRY_MS,
    STREAM_SEND_S,
)
from edgefleet.protocol.events import Event, is_wanted
from edgefleet.protocol.wire import encode
from edgefleet.security.principals import Principal

Allowed = Callable[[], object]
"""Raises an EdgefleetError once the reader may not read any more."""


class EventStreams:
    """The open streams of all readers."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._open: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """The open streams."""
        return self._open.total()

    def open(
        self,
        by: Principal,
        allowed: Allowed,
        kinds: tuple[str, ...],
        *,
        after: int | None,
        follow: bool,
    ) -> Response:
        """A stream from ``after`` on; None: from now on.

        Raises OperatorError ``events_gone`` or DeviceError ``overloaded``.
        """
        position = self._log.last if after is None else after
        self._log.check(position)
        if self.count >= EVENT_STREAMS or self._open[by.name] >= EVENT_STREAMS_OF_ONE:
            raise Overloaded(
                "connections",
                f"The limit of event streams is reached: {EVENT_STREAMS_OF_ONE} of one user, "
                f"{EVENT_STREAMS} in all.",
            )
        texts = self._texts(position, kinds, allowed, follow=follow)
        return _Stream(self._counted(by.name, texts))

    async def _counted(self, reader: str, texts: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        self._open[reader] += 1
        try:
            async for text in texts:
                yield text
        finally:
            self._open[reader] -= 1
            self._open += Counter()  # drops the readers without a stream

    async def _texts(
        self, position: int, kinds: tuple[str, ...], allowed: Allowed, *, follow: bool
    ) -> AsyncGenerator[bytes]:
        yield b"retry: %d\nid: %d\n\n" % (STREAM_RETRY_MS, position)
        sent_at = self._clock.monotonic()
        while True:
            try:
                allowed()
                events = self._log.after(position)
            except EdgefleetError:
                return  # the reader's next request gets the error
            if events:
                position = events[-1].id
                text = _text([one for one in events if is_wanted(one.kind, kinds)], position)
                sent_at = self._clock.monotonic()
                yield text
                continue
            if not follow:
                return
            if self._clock.monotonic() - sent_at >= STREAM_HEARTBEAT_S:
                sent_at = self._clock.monotonic()
                yield b": heartbeat\nid: %d\n\n" % position
            await self._log.wait(position, STREAM_CHECK_S)


def _text(events: Sequence[Event], position: int) -> bytes:
    """The events, and the position after those that the reader does not want."""
    texts = [
        b"id: %d\nevent: %s\ndata: %s\n\n" % (one.id, one.kind.encode(), encode(one))
        for one in events
    ]
    if not events or events[-1].id != position:
        texts.append(b"id: %d\n\n" % position)
    return b"".join(texts)


class _Stream(Response):
    """Sends each piece within ``STREAM_SEND_S``. Ends when the client disconnects."""

    media_type = "text/event-stream"

    def __init__(self, texts: AsyncGenerator[bytes]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._texts = texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        async with aclosing(self._texts):
            async for text in self._texts:
                try:
                    async with asyncio.timeout(STREAM_SEND_S):
                        await send({"type": "http.response.body", "body": text, "more_body": True})
                except TimeoutError:
                    return  # too slow: without the end of the body, the server disconnects
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def start_of(request: Request) -> int | None:
    """The position in ``Last-Event-ID`` or ``?after=``. Raises OperatorError ``bad_request``."""
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise OperatorError(
            "bad_request", f"{text[:80]!r} is not the id of an event.", field="after"
        )
    return int(text)
