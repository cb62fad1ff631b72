"""Bytes become requests, within bounds.

llhttp (through httptools) parses, strictly: it refuses a request that has both a Content-Length
and a Transfer-Encoding, a repeated length, bare line feeds and folded headers (RFC 9112, section
6.3: these are how requests are smuggled). What this module adds are bounds.
"""

from collections import deque
from enum import IntEnum
from typing import ClassVar, Final, NoReturn, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

import httptools

from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.http1.limits import (
    CHUNKING_FACTOR,
    FIRST_BODY_BYTES,
    FRAGMENT_COST_BYTES,
    LARGE_BODY_BYTES,
    ConnectionLimits,
)
from edgefleet.http1.message import Request

_VERSIONS: Final = ("1.1", "1.0")


class ReadStage(IntEnum):
    """What of the next request has arrived."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class Memory(Protocol):
    """What the readers of one listener share."""

    held_bytes: int  # in bodies, of all connections
    buffer: memoryview  # where all read to: each parses before the next one reads


class _StopParsing(Exception):  # noqa: N818 - says that parsing ends, not that something failed
    """Raised in a parser callback after ``_stopped_by`` was set."""


class RequestReader:
    """One connection's side that reads.

    ``ready`` are whole requests in their order; ``refusal``, if there is one, comes after them, and
    nothing after it. A large body of known length is read straight to where it stays, past the
    parser.
    """

    direct_bytes: ClassVar[int] = LARGE_BODY_BYTES

    def __init__(self, memory: Memory, limits: ConnectionLimits) -> None:
        self.ready: deque[Request] = deque()
        self.refusal: EdgefleetError | None = None
        self.ended = False  # no further request is read
        self.stage = ReadStage.IDLE
        self.begun = 0  # requests
        self.expects_continue = False  # the client waits for 100 Continue
        self.held_bytes = 0
        self._memory = memory
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._stopped_by: EdgefleetError | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._method = self._path = self._query = ""
        self._keeps = True  # the client wants to go on after this request
        self._head_bytes = 0
        self._fed_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._direct: bytearray | None = None  # room for a large body, ``_body_bytes`` of it read
        self._announced_bytes = 0  # of that body

    def buffer(self) -> memoryview:
        """Where the next bytes go."""
        if self._direct is not None:
            return memoryview(self._direct)[self._body_bytes :]
        return self._memory.buffer

    def received(self, size_bytes: int) -> None:
        """So many bytes stand in the buffer."""
        if self.ended:
            return
        if self._direct is None:
            self._parse(self._memory.buffer[:size_bytes])
        else:
            self._fill(self._direct, size_bytes)

    def refuse(self, error: EdgefleetError) -> None:
        """Read no further request: ``error`` is the answer to what is arriving."""
        self.refusal = error
        self.ended = True
        self.expects_continue = False
        self.stage = ReadStage.IDLE
        if self._direct is None:
            self.hold(-sum(map(len, self._body)) - FRAGMENT_COST_BYTES * len(self._body))
        else:
            self.hold(-len(self._direct))
            self._direct = None
        self._body = []

    def forget(self) -> None:
        """The client has gone: let go of all that it sent."""
        self.ended = True
        self.expects_continue = False
        self.ready.clear()
        self._body = []
        self._direct = None
        self.hold(-self.held_bytes)

    def hold(self, size_bytes: int) -> None:
        """Count bytes of bodies that are in memory; negative when they are let go."""
        self.held_bytes += size_bytes
        self._memory.held_bytes += size_bytes

    # The parser calls these.

    def on_message_begin(self) -> None:
        self.stage = ReadStage.HEAD
        self.begun += 1
        self._url = b""
        self._headers = {}
        self._head_bytes = self._fed_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self.stage is ReadStage.BODY:
            return  # a trailer: it must not change what the head said
        name = name.lower()
        if name in self._headers:
            if name == b"host":
                self._stop(DeviceError("request_malformed", "There are two Host headers."))
            value = b"%s, %s" % (self._headers[name], value)
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self.stage = ReadStage.BODY
        headers = self._headers
        version = self._parser.get_http_version()
        if version not in _VERSIONS or self._parser.get_method() == b"CONNECT":
            self._stop(DeviceError("request_malformed", "Only HTTP/1.1 requests are answered."))
        if version == "1.1" and b"host" not in headers:
            self._stop(DeviceError("request_malformed", "The Host header is missing."))
        if int(headers.get(b"content-length", 0)) > self._limits.body_bytes:
            self._stop(self._too_large())
        if self._parser.should_upgrade() and (
            b"content-length" in headers or b"transfer-encoding" in headers
        ):  # the parser takes such a body for the other protocol's bytes, so it must not stay
            self._stop(DeviceError("request_malformed", "A body with an Upgrade is not taken."))
        self._method = self._parser.get_method().decode("ascii")
        self._path, self._query = self._target()
        self._keeps = self._parser.should_keep_alive() and version == "1.1"
        expect = headers.get(b"expect")
        if expect is not None and version == "1.1":
            if expect.lower() != b"100-continue":
                self._stop(DeviceError("request_malformed", "The expectation is not known."))
            self.expects_continue = True

    def on_body(self, body: bytes) -> None:
        self.expects_continue = False
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._stop(self._too_large())
        self._body.append(body)
        self.hold(len(body) + FRAGMENT_COST_BYTES)
        if self._memory.held_bytes > self._limits.held_bytes:
            self._stop(_full())

    def on_message_complete(self) -> None:
        body = self._body
        self._body = []
        self.hold(-FRAGMENT_COST_BYTES * len(body))
        self._take(body[0] if len(body) == 1 else b"".join(body))

    # Between bytes and requests.

    def _parse(self, data: memoryview) -> None:
        waiting = len(self.ready)
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # We speak no other protocol, so the offer is not taken up (RFC 9110, 7.8).
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not self.ended:  # else these are bytes after the last request: not ours
                    self.refuse(
                        self._stopped_by or DeviceError("request_malformed", f"HTTP: {error}.")
                    )
                break
        if self.ended:
            return
        if self.stage is ReadStage.BODY and b"content-length" in self._headers:
            self._go_direct(int(self._headers[b"content-length"]))
        elif len(self.ready) == waiting:
            self._count_unfinished(len(data))

    def _go_direct(self, size_bytes: int) -> None:
        """Read the rest of a large body to where it stays. The parser never sees it."""
        if size_bytes - self._body_bytes < self.direct_bytes:
            return
        self._announced_bytes = size_bytes
        self.hold(-self._body_bytes - FRAGMENT_COST_BYTES * len(self._body))
        self._make_room(b"".join(self._body))
        self._body = []
        self._parser = httptools.HttpRequestParser(self)

    def _make_room(self, body: bytes | bytearray) -> None:
        """Twice the room for ``body``. Room counts as held: announcing a body takes none."""
        before = len(self._direct or b"")
        room = bytearray(min(self._announced_bytes, max(FIRST_BODY_BYTES, 2 * len(body))))
        room[: len(body)] = body
        self._direct = room
        self.hold(len(room) - before)
        if self._memory.held_bytes > self._limits.held_bytes:
            self.refuse(_full())

    def _fill(self, body: bytearray, size_bytes: int) -> None:
        self.expects_continue = False
        self._body_bytes += size_bytes
        if self._body_bytes == self._announced_bytes:
            self._direct = None
            self._take(body)
        elif self._body_bytes == len(body):
            self._make_room(body)

    def _take(self, body: bytes | bytearray) -> None:
        """A whole request is here: it waits for its turn."""
        self.stage = ReadStage.IDLE
        self.expects_continue = False
        self.ended = not self._keeps
        self.ready.append(Request(self._method, self._path, self._query, self._headers, body))

    def _target(self) -> tuple[str, str]:
        url = self._url
        try:
            path, _, query = url.partition(b"?")
            if not path.startswith(b"/"):  # absolute form, or *
                path = urlsplit(path).path or b"/"
            if b"%" in path:
                path = unquote_to_bytes(path)
            return path.decode("utf-8"), query.decode("ascii")
        except ValueError:
            self._stop(DeviceError("request_malformed", "The request target is no valid text."))

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self._limits.head_bytes:
            self._stop(DeviceError("head_too_large", "The headers are too large."))

    def _count_unfinished(self, size_bytes: int) -> None:
        """Bound what the parser itself holds back: a header or a chunk size without its end."""
        self._fed_bytes += size_bytes
        limits = self._limits
        if self.stage is ReadStage.HEAD and self._fed_bytes > limits.head_bytes + 256:
            self.refuse(DeviceError("head_too_large", "The headers are too large."))
        if self.stage is ReadStage.BODY and (
            self._fed_bytes > CHUNKING_FACTOR * limits.body_bytes + limits.head_bytes
        ):
            self.refuse(self._too_large())

    def _too_large(self) -> DeviceError:
        return DeviceError(
            "body_too_large", f"A body may have {self._limits.body_bytes} bytes.", field="body"
        )

    def _stop(self, error: EdgefleetError) -> NoReturn:
        """Refuse from inside the parser."""
        self._stopped_by = error
        raise _StopParsing


def _full() -> DeviceError:
    return DeviceError("overloaded", "Too many bodies are in memory.")
