"""Parses requests within limits.

llhttp (through httptools) parses strictly. It refuses a request that has both a Content-Length and
a Transfer-Encoding, a repeated length, bare line feeds and folded headers. These allow request
smuggling (RFC 9112, section 6.3). This module adds the limits. A head that llhttp has accepted is
not parsed again, see ``known_heads``.
"""

from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import ClassVar, Final, NoReturn, Protocol

import httptools

from edgefleet.base.errors import DeviceError, EdgefleetError, Overloaded
from edgefleet.http1.known_heads import Head, KnownHeads
from edgefleet.http1.limits import (
    CHUNKING_FACTOR,
    FIRST_BODY_BYTES,
    FRAGMENT_COST_BYTES,
    LARGE_BODY_BYTES,
    WHOLE_BYTES,
    ConnectionLimits,
)
from edgefleet.http1.message import Request
from edgefleet.http1.target import read_target

_VERSIONS: Final = ("1.1", "1.0")


class ReadStage(IntEnum):
    """The part of the next request that is being received."""

    IDLE = 0
    HEAD = 1
    BODY = 2


Room = Callable[[int, Mapping[bytes, bytes]], memoryview | None]
"""Room for a body of this size with these headers. None if there is not so much."""


class Memory(Protocol):
    """Memory that all readers of one listener share."""

    room: Room | None
    heads: KnownHeads

    buffered_bytes: int  # in bodies of all connections
    buffer: memoryview  # the shared receive buffer; a reader parses it before the next one reads


class _StopParsing(Exception):  # noqa: N818 - ends parsing, no error
    """Raised in a parser callback, after ``_stopped_by`` was set."""


class RequestReader:
    """Reads the requests of one connection.

    ``ready`` has the whole requests, in order. ``refusal`` is an error to send after their answers;
    no request is read after it. A large body of known length is received into its own buffer and
    bypasses the parser.
    """

    direct_bytes: ClassVar[int] = LARGE_BODY_BYTES

    def __init__(self, memory: Memory, limits: ConnectionLimits) -> None:
        self.ready: deque[Request] = deque()
        self.refusal: EdgefleetError | None = None
        self.ended = False  # no further request is read
        self.stage = ReadStage.IDLE
        self.begun = 0  # requests
        self.expects_continue = False  # the client waits for 100 Continue
        self.buffered_bytes = 0
        self.peer = ""  # the address of the client
        self._memory = memory
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._stopped_by: EdgefleetError | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._method = self._path = self._query = ""
        self._keeps = True  # the connection is kept alive after this request
        self._learns = False  # the next head that is parsed is to be remembered
        self._learnt: Head | None = None
        self._head_bytes = 0
        self._fed_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        # The buffer of a large body; ``_body_bytes`` of it are filled, ``_direct_bytes`` counted.
        self._direct: bytearray | memoryview | None = None
        self._direct_bytes = 0
        self._announced_bytes = 0  # the size of that body

    def buffer(self) -> memoryview:
        """The buffer for the next received bytes."""
        if self._direct is not None:
            return memoryview(self._direct)[self._body_bytes :]
        return self._memory.buffer

    def whole_request(self, size_bytes: int) -> Request | None:
        """The request, if the new bytes in the buffer are one request with a known head.

        So it is with almost every request to a model. None if ``received`` must process the bytes.
        """
        if size_bytes > WHOLE_BYTES or self.stage is not ReadStage.IDLE or self.ended:
            return None
        memory = self._memory
        request = memory.heads.whole_request(bytes(memory.buffer[:size_bytes]), self.peer)
        if request is None:
            return None
        body_bytes = len(request.raw_body)
        if memory.buffered_bytes + body_bytes > self._limits.buffered_bytes:
            return None
        self.account(body_bytes)
        return request

    def received(self, size_bytes: int) -> None:
        """Process ``size_bytes`` new bytes in the buffer."""
        if self.ended:
            return
        if self._direct is not None:
            self._fill(self._direct, size_bytes)
            return
        data = self._memory.buffer[:size_bytes]
        while data and self.stage is ReadStage.IDLE and not self.ended:
            text, head = self._memory.heads.find(data)
            if head is None:
                self._learn(text, data)
                return
            data = self._read_known(head, data[len(text) :])
        if data and not self.ended:
            self._parse(data)

    def refuse(self, error: EdgefleetError) -> None:
        """Stop reading. ``error`` is the answer to the request that is being received."""
        self.refusal = error
        self.ended = True
        self.expects_continue = False
        self.stage = ReadStage.IDLE
        if self._direct is None:
            self.account(-sum(map(len, self._body)) - FRAGMENT_COST_BYTES * len(self._body))
        else:
            self.account(-self._direct_bytes)
            self._direct = None
        self._body = []

    def forget(self) -> None:
        """The client has disconnected: free its requests and bodies."""
        self.ended = True
        self.expects_continue = False
        self.ready.clear()
        self._body = []
        self._direct = None
        self.account(-self.buffered_bytes)

    def account(self, size_bytes: int) -> None:
        """Count bytes of bodies in memory. ``size_bytes`` is negative if they were freed."""
        self.buffered_bytes += size_bytes
        self._memory.buffered_bytes += size_bytes

    # Called by the parser.

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
            return  # a trailer must not change the head
        name = name.lower()
        if name in self._headers:
            if name == b"host":
                self._stop(DeviceError("request_malformed", "The request has two Host headers."))
            value = b"%s, %s" % (self._headers[name], value)
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self.stage = ReadStage.BODY
        headers = self._headers
        version = self._parser.get_http_version()
        if version not in _VERSIONS or self._parser.get_method() == b"CONNECT":
            self._stop(
                DeviceError(
                    "request_malformed",
                    "Only HTTP/1.1 and 1.0 requests other than CONNECT are supported.",
                )
            )
        if version == "1.1" and b"host" not in headers:
            self._stop(DeviceError("request_malformed", "The Host header is missing."))
        if int(headers.get(b"content-length", 0)) > self._limits.body_bytes:
            self._stop(self._too_large())
        if self._parser.should_upgrade() and (
            b"content-length" in headers or b"transfer-encoding" in headers
        ):  # the parser would read this body as bytes of the other protocol
            self._stop(
                DeviceError("request_malformed", "A request with Upgrade must have no body.")
            )
        self._method = self._parser.get_method().decode("ascii")
        self._path, self._query = self._target()
        self._keeps = self._parser.should_keep_alive() and version == "1.1"
        expect = headers.get(b"expect")
        if expect is not None and version == "1.1":
            if expect.lower() != b"100-continue":
                self._stop(
                    DeviceError(
                        "request_malformed", "The only supported expectation is 100-continue."
                    )
                )
            self.expects_continue = True
        if self._learns:
            self._learns = False
            if self._keeps:
                size_bytes = int(headers.get(b"content-length", 0))
                self._learnt = Head(self._method, self._path, self._query, headers, size_bytes)

    def on_body(self, body: bytes) -> None:
        self.expects_continue = False
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._stop(self._too_large())
        self._body.append(body)
        self.account(len(body) + FRAGMENT_COST_BYTES)
        if self._memory.buffered_bytes > self._limits.buffered_bytes:
            self._stop(_full())

    def on_message_complete(self) -> None:
        body = self._body
        self._body = []
        self.account(-FRAGMENT_COST_BYTES * len(body))
        self._enqueue(body[0] if len(body) == 1 else b"".join(body))

    # Parsing.

    def _learn(self, text: bytes, data: memoryview) -> None:
        """Parse ``data``, which begins with a new head. Remember this head if it is accepted."""
        self._learns = bool(text)
        self._parse(data)
        self._learns = False
        learnt, self._learnt = self._learnt, None
        if learnt is not None and self.refusal is None:
            self._memory.heads.add(text, learnt)

    def _read_known(self, head: Head, data: memoryview) -> memoryview:
        """Read the request of a known head. Returns the data after its body."""
        self.begun += 1
        self._method, self._path, self._query = head.method, head.path, head.query
        self._headers, self._keeps = head.headers, True
        if len(data) < head.body_bytes:
            self.stage = ReadStage.BODY
            self._announced_bytes = head.body_bytes
            self._receive(data)
            return data[:0]
        body = bytes(data[: head.body_bytes])
        self.account(len(body))
        if self._memory.buffered_bytes > self._limits.buffered_bytes:
            self._body = [body]
            self.account(FRAGMENT_COST_BYTES)
            self.refuse(_full())
        else:
            self._enqueue(body)
        return data[head.body_bytes :]

    def _parse(self, data: memoryview) -> None:
        waiting = len(self.ready)
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # The server supports no other protocol and ignores the offer (RFC 9110, 7.8).
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not self.ended:  # else the bytes are after the last request, ignored
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
        """Receive the rest of a large body into a buffer of its own, past the parser."""
        if size_bytes - self._body_bytes < self.direct_bytes:
            return
        self._announced_bytes = size_bytes
        self.account(-self._body_bytes - FRAGMENT_COST_BYTES * len(self._body))
        body, self._body = b"".join(self._body), []
        self._parser = httptools.HttpRequestParser(self)
        self._receive(body)

    def _receive(self, body: bytes | memoryview) -> None:
        """Receive a body of the announced size into a buffer of its own. It begins with ``body``.

        A room of the listener is for large bodies only.
        """
        size_bytes = self._announced_bytes
        self._body_bytes, self._direct_bytes = len(body), 0
        room = None
        if self._memory.room and size_bytes - len(body) >= self.direct_bytes:
            room = self._memory.room(size_bytes, self._headers)
        if room is None:
            self._make_room(body)
        else:
            room[: len(body)] = body
            self._direct = room
            self._count_direct(len(body))

    def _make_room(self, body: bytes | bytearray | memoryview) -> None:
        """Double the buffer of ``body``. Only the buffer counts, not the announced size."""
        room = bytearray(min(self._announced_bytes, max(FIRST_BODY_BYTES, 2 * len(body))))
        room[: len(body)] = body
        self._direct = room
        self._count_direct(len(room))

    def _count_direct(self, size_bytes: int) -> None:
        """Count so much of the buffer of a large body. Bytes of a room count when they arrive."""
        self.account(size_bytes - self._direct_bytes)
        self._direct_bytes = size_bytes
        if self._memory.buffered_bytes > self._limits.buffered_bytes:
            self.refuse(_full())

    def _fill(self, body: bytearray | memoryview, size_bytes: int) -> None:
        self.expects_continue = False
        self._body_bytes += size_bytes
        if isinstance(body, memoryview):
            self._count_direct(self._body_bytes)
            if self.ended:
                return
        if self._body_bytes == self._announced_bytes:
            self._direct = None
            self._enqueue(body)
        elif isinstance(body, bytearray) and self._body_bytes == len(body):
            self._make_room(body)

    def _enqueue(self, body: bytes | bytearray | memoryview) -> None:
        """Add the request, now whole, to ``ready``."""
        self.stage = ReadStage.IDLE
        self.expects_continue = False
        self.ended = not self._keeps
        self.ready.append(
            Request(self._method, self._path, self._query, self._headers, body, peer=self.peer)
        )

    def _target(self) -> tuple[str, str]:
        try:
            return read_target(self._url)
        except ValueError:
            self._stop(DeviceError("request_malformed", "The request target is not valid text."))

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self._limits.head_bytes:
            self._stop(_head_too_large(self._limits.head_bytes))

    def _count_unfinished(self, size_bytes: int) -> None:
        """Limit the bytes inside the parser: an unfinished header or chunk size."""
        self._fed_bytes += size_bytes
        limits = self._limits
        if self.stage is ReadStage.HEAD and self._fed_bytes > limits.head_bytes + 256:
            self.refuse(_head_too_large(limits.head_bytes))
        if self.stage is ReadStage.BODY and (
            self._fed_bytes > CHUNKING_FACTOR * limits.body_bytes + limits.head_bytes
        ):
            self.refuse(self._too_large())

    def _too_large(self) -> DeviceError:
        return DeviceError(
            "body_too_large",
            f"The body is larger than {self._limits.body_bytes} bytes.",
            field="body",
        )

    def _stop(self, error: EdgefleetError) -> NoReturn:
        """Refuse the request from a callback of the parser."""
        self._stopped_by = error
        raise _StopParsing


def _full() -> DeviceError:
    return Overloaded("memory", "The server has no memory left for request bodies.")


def _head_too_large(limit_bytes: int) -> DeviceError:
    return DeviceError("head_too_large", f"The headers are larger than {limit_bytes} bytes.")
