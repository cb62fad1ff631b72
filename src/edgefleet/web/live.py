"""Keeps an open page current: sends the changed fragments, as a stream or when polled.

The stream is Server-Sent Events. ``fragments`` carries the fragments whose HTML changed since the
last message, ``alive`` is the keep-alive, ``gone`` means that the page no longer exists.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import NamedTuple

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from edgefleet.base.clock import Clock
from edgefleet.base.errors import EdgefleetError
from edgefleet.web import limits
from edgefleet.web.pages import Page
from edgefleet.web.render import Fragment, fragment


class Piece(msgspec.Struct, frozen=True):
    """One fragment as it is sent."""

    name: str
    version: str
    html: str


class News(msgspec.Struct, frozen=True):
    """``at`` is the hub's clock; the page computes ages from it. ``last_seen``: see ``Alive``."""

    at: float
    title: str
    fragments: tuple[Piece, ...]
    last_seen: Mapping[str, float] = {}


class Alive(msgspec.Struct, frozen=True):
    """``last_seen`` has the devices that checked in since the last message, with the time."""

    at: float
    last_seen: Mapping[str, float] = {}


class Gone(msgspec.Struct, frozen=True):
    message: str


class EventStream(StreamingResponse):
    """A streaming response. Its generator closes as soon as the client disconnects."""

    def __init__(self, messages: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        # A proxy that buffers the response would keep all messages from the page.
        unbuffered = {**headers, "X-Accel-Buffering": "no"}
        super().__init__(messages, headers=unbuffered, media_type="text/event-stream")
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._messages):
            await super().__call__(scope, receive, send)


class Snapshot(NamedTuple):
    """A rendered page: its title, its fragments, and when its devices were last seen."""

    title: str
    fragments: tuple[Fragment, ...]
    last_seen: Mapping[str, float]


class Live:
    """Renders each address at most once per interval, however many browsers have it open."""

    def __init__(self, clock: Clock, interval_s: float = limits.LIVE_INTERVAL_S) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._latest: dict[str, tuple[float, Snapshot]] = {}
        self._streams = 0

    @property
    def full(self) -> bool:
        """True if the limit of streams is reached: further pages must poll."""
        return self._streams >= limits.LIVE_STREAMS

    def news(self, address: str, build: Callable[[], Page]) -> bytes:
        """All fragments of a page, for a browser that polls."""
        shot = self._snapshot(address, build)
        return msgspec.json.encode(self._news(shot.title, shot.fragments, shot.last_seen))

    async def stream(
        self, address: str, build: Callable[[], Page], check: Callable[[], object]
    ) -> AsyncGenerator[bytes]:
        """Messages until the page is gone or ``LIVE_STREAM_S`` have passed.

        ``check`` is called before each message: an EdgefleetError that it raises ends the stream.
        """
        self._streams += 1
        try:
            async with aclosing(self._messages(address, build, check)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._streams -= 1

    async def _messages(
        self, address: str, build: Callable[[], Page], check: Callable[[], object]
    ) -> AsyncGenerator[bytes]:
        sent: dict[str, str] = {}
        known: dict[str, float] = {}
        opened = sent_at = self._clock.monotonic()
        while self._clock.monotonic() - opened < limits.LIVE_STREAM_S:
            try:
                check()
                shot = self._snapshot(address, build)
            except EdgefleetError as error:
                yield _message("gone", Gone(error.message))
                return
            changed = tuple(
                piece for piece in shot.fragments if sent.get(piece.name) != piece.version
            )
            is_due = self._clock.monotonic() - sent_at >= limits.LIVE_ALIVE_S
            if not (changed or is_due):
                await asyncio.sleep(self._interval_s)
                continue
            sent_at = self._clock.monotonic()
            newer = {name: at for name, at in shot.last_seen.items() if known.get(name) != at}
            known |= newer
            if changed:
                sent |= {piece.name: piece.version for piece in changed}
                yield _message("fragments", self._news(shot.title, changed, newer))
            else:
                yield _message("alive", Alive(self._clock.now(), newer))
            await asyncio.sleep(self._interval_s)

    def _news(
        self, title: str, fragments: tuple[Fragment, ...], last_seen: Mapping[str, float]
    ) -> News:
        pieces = tuple(Piece(piece.name, piece.version, piece.html) for piece in fragments)
        return News(self._clock.now(), title, pieces, last_seen)

    def _snapshot(self, address: str, build: Callable[[], Page]) -> Snapshot:
        now = self._clock.monotonic()
        # Half an interval: viewers out of step share a snapshot, and none waits two intervals.
        fresh = now - self._interval_s / 2
        kept = self._latest.get(address)
        if kept is not None and kept[0] > fresh:
            return kept[1]
        page = build()
        fragments = tuple(fragment(name, page.context) for name in page.parts)
        made = Snapshot(page.title, fragments, page.last_seen)
        self._latest = {key: one for key, one in self._latest.items() if one[0] > fresh}
        self._latest[address] = (now, made)
        return made


def _message(event: str, data: msgspec.Struct) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))
