"""Requests, replies, and the encoding of replies."""

import math
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import msgspec

from edgefleet.base.errors import EdgefleetError, InternalError
from edgefleet.http1.limits import LARGE_BODY_BYTES
from edgefleet.protocol.wire import encode, problem

_OK: Final = 200
_BODILESS: Final = frozenset({204, 304})
_LINE_BREAKS: Final = frozenset("\r\n\0")
_PASSING: Final = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)


class Request(msgspec.Struct, eq=False):
    """One whole request.

    ``path`` is percent-decoded and without the query; ``query`` is not decoded. ``headers`` maps
    lower-case names to values. Values of a repeated header are joined by a comma. ``raw_body`` is
    the body as it was received. ``peer`` is the address of the client, empty on a Unix socket.
    """

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    raw_body: bytes | bytearray | memoryview
    peer: str = ""

    @property
    def body(self) -> bytes:
        """The body. The first access copies a large one."""
        if not isinstance(self.raw_body, bytes):
            self.raw_body = bytes(self.raw_body)
        return self.raw_body

    @property
    def view(self) -> memoryview:
        """The body without a copy."""
        return memoryview(self.raw_body)


class Reply(msgspec.Struct, frozen=True):
    """A reply. The server adds the headers content-length, date and connection.

    ``lines`` are whole header lines that the handler encoded before, for many replies. ``make``
    makes the body of a long reply outside of the event loop, and is called once.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    lines: bytes = b""
    make: Callable[[], Awaitable[bytes]] | None = None


async def made(reply: Reply) -> Reply:
    """The reply with the body that its ``make`` makes."""
    assert reply.make is not None  # noqa: S101 - a defect, not input
    return msgspec.structs.replace(reply, body=await reply.make(), make=None)


def problem_reply(error: EdgefleetError) -> Reply:
    """The reply whose body is the Problem of ``error``."""
    return Reply(error.status, encode(problem(error)), headers=retry_headers(error))


def retry_headers(error: EdgefleetError) -> tuple[tuple[str, str], ...]:
    """``Retry-After`` in whole seconds, for errors that pass (503, 429)."""
    if error.status not in _PASSING:
        return ()
    return (("Retry-After", str(max(1, math.ceil(error.retry_after_s)))),)


def reply_bytes(reply: Reply, date: bytes, *, to_head: bool, closes: bool) -> tuple[bytes, ...]:
    """The encoded reply. A large body is a separate piece, to save a copy.

    ``date`` is a whole header line. Raises InternalError if a header has a line break.
    """
    status, body = reply.status, reply.body
    start = _start(status, reply.content_type)
    if status == _OK and len(body) < LARGE_BODY_BYTES and not (reply.headers or closes or to_head):
        pieces = (start, date, reply.lines, len(body), body)  # almost every reply
        return (b"%s%s%scontent-length: %d\r\n\r\n%s" % pieces,)
    head = b"%s%s%s" % (start, date, reply.lines)
    for name, value in reply.headers:
        if not _LINE_BREAKS.isdisjoint(name) or not _LINE_BREAKS.isdisjoint(value):
            raise InternalError("internal", f"The header {name!r} has a line break.")
        head += f"{name}: {value}\r\n".encode("latin-1", "replace")
    if closes:
        head += b"connection: close\r\n"
    if status in _BODILESS:
        return (head + b"\r\n",)
    head += b"content-length: %d\r\n\r\n" % len(body)
    if to_head:
        return (head,)
    if len(body) < LARGE_BODY_BYTES:
        return (head + body,)
    return (head, body)


@lru_cache(maxsize=256)
def _start(status: int, content_type: str) -> bytes:
    if not _LINE_BREAKS.isdisjoint(content_type):
        raise InternalError("internal", "The content type has a line break.")
    kind = f"content-type: {content_type}\r\n" if content_type else ""
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{kind}".encode("latin-1")
