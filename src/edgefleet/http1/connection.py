"""One client's connection: requests are read, answered one after another, in their order.

llhttp (through httptools) parses, strictly: it refuses a request that has both a Content-Length
and a Transfer-Encoding, a repeated length, bare line feeds and folded headers (RFC 9112, section
6.3: these are how requests are smuggled). What this module adds are bounds and order.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from functools import partial
from typing import ClassVar, Final, NoReturn, Protocol, cast
from urllib.parse import unquote_to_bytes, urlsplit

import httptools

from edgefleet.base.errors import DeviceError, EdgefleetError, InternalError
from edgefleet.http1.limits import (
    CHUNKING_FACTOR,
    FRAGMENT_COST_BYTES,
    LARGE_BODY_BYTES,
    Limits,
)
from edgefleet.http1.message import Reply, Request, reply_bytes

Handler = Callable[[Request], Reply | Awaitable[Reply]]
RenderError = Callable[[EdgefleetError], Reply]

_NEVER: Final = float("inf")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_VERSIONS: Final = ("1.1", "1.0")


class Stage(IntEnum):
    """What of the next request has arrived."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class Host(Protocol):
    """What a connection needs of its listener."""

    handler: Handler
    render_error: RenderError
    limits: Limits
    connections: "set[Connection]"
    held_bytes: int
    draining: bool
    date: bytes  # a whole header line
    buffer: memoryview  # where all connections read to: each parses before the next one reads

    def left(self, connection: "Connection") -> None: ...


class _StopParsing(Exception):  # noqa: N818 - says that parsing ends, not that something failed
    """Raised in a parser callback after ``_refusal`` was set."""


class Connection(asyncio.BufferedProtocol):
    """Reads into a queue, answers from it.

    A handler's future is never cancelled: what it began is finished even if nobody is left to read
    the reply. A large body of known length is read straight to where it stays, past the parser.
    """

    direct_bytes: ClassVar[int] = LARGE_BODY_BYTES

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._limits = host.limits
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request | Reply] = deque()  # a Reply in it is a refusal, and the last
        self._stage = Stage.IDLE
        self._now = 0.0
        self._deadline = _NEVER
        self._running = False  # an answer is being made, or its turn comes in the next loop turn
        self._last = False  # no further request is read
        self._blocked = False  # the client does not read
        self._reading = True
        self._lingering = False
        self._unsent_bytes = 0
        self._held_bytes = 0
        self._refusal: EdgefleetError | None = None
        self._continue = False  # the client waits for 100 Continue
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._method = self._path = self._query = ""
        self._keeps = True  # the client wants to go on after this request
        self._head_bytes = 0
        self._fed_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._direct: bytearray | None = None  # a large body, ``_body_bytes`` of it read

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._now = self._loop.time()
        self._deadline = self._now + self._limits.idle_s
        full = len(self._host.connections) >= self._limits.connections
        self._host.connections.add(self)
        if full or self._host.draining:
            self._refuse(DeviceError("overloaded", "There are too many connections."))
            self._work()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._queue.clear()
        self._body.clear()
        self._direct = None
        self._hold(-self._held_bytes)
        self._host.left(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        if self._direct is not None:
            return memoryview(self._direct)[self._body_bytes :]
        return self._host.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._last:
            return
        self._now = self._loop.time()
        if self._direct is None:
            self._parse(self._host.buffer[:nbytes])
        else:
            self._fill(self._direct, nbytes)
        self._work()

    def eof_received(self) -> bool:
        if self._last or not (self._running or self._queue):
            return False
        self._last = True
        return True

    def pause_writing(self) -> None:
        self._blocked = True
        self._unsent_bytes = self._out().get_write_buffer_size()
        self._deadline = self._loop.time() + self._limits.write_s
        self._set_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        if not self._lingering:
            self._now = self._loop.time()
            self._rest()
        self._set_reading()
        self._work()

    # The listener's side.

    def sweep(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if now < self._deadline or self._transport is None:
            return
        if self._lingering:
            self._transport.abort()
        elif self._blocked:
            unsent_bytes = self._transport.get_write_buffer_size()
            if unsent_bytes >= self._unsent_bytes:
                self._transport.abort()
            self._unsent_bytes = unsent_bytes
            self._deadline = now + self._limits.write_s
        elif self._running or self._queue:
            self._deadline = _NEVER
        elif self._stage is Stage.IDLE:
            self._transport.close()
        else:
            part = "head" if self._stage is Stage.HEAD else "body"
            self._refuse(DeviceError("request_too_slow", f"The {part} did not arrive in time."))
            self._work()

    def drain(self) -> None:
        """Close now when nothing is under way, else after the last answer."""
        if self._transport is None or self._running or self._queue:
            return
        if self._stage is Stage.IDLE and not self._blocked:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # The parser's side.

    def on_message_begin(self) -> None:
        self._stage = Stage.HEAD
        self._deadline = self._now + self._limits.head_s
        self._url = b""
        self._headers = {}
        self._head_bytes = self._fed_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self._stage is Stage.BODY:
            return  # a trailer: it must not change what the head said
        name = name.lower()
        if name in self._headers:
            if name == b"host":
                self._stop(DeviceError("request_malformed", "There are two Host headers."))
            value = b"%s, %s" % (self._headers[name], value)
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._stage = Stage.BODY
        self._deadline = self._now + self._limits.body_s
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
            self._continue = True

    def on_body(self, body: bytes) -> None:
        self._continue = False
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._stop(self._too_large())
        self._body.append(body)
        self._hold(len(body) + FRAGMENT_COST_BYTES)
        if self._host.held_bytes > self._limits.held_bytes:
            self._stop(_full())

    def on_message_complete(self) -> None:
        body = self._body
        self._body = []
        self._hold(-FRAGMENT_COST_BYTES * len(body))
        self._take(body[0] if len(body) == 1 else b"".join(body))

    # Between them.

    def _parse(self, data: memoryview) -> None:
        waiting = len(self._queue)
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # We speak no other protocol, so the offer is not taken up (RFC 9110, 7.8).
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not self._last:  # else these are bytes after the last request: not ours
                    self._refuse(
                        self._refusal or DeviceError("request_malformed", f"HTTP: {error}.")
                    )
                break
        if self._last:
            return
        if self._stage is Stage.BODY and b"content-length" in self._headers:
            self._go_direct(int(self._headers[b"content-length"]))
        elif len(self._queue) == waiting:
            self._count_unfinished(len(data))

    def _go_direct(self, size_bytes: int) -> None:
        """Read the rest of a large body to where it stays. The parser never sees it."""
        if size_bytes - self._body_bytes < self.direct_bytes:
            return
        self._direct = bytearray(size_bytes)
        self._direct[: self._body_bytes] = b"".join(self._body)
        self._hold(-FRAGMENT_COST_BYTES * len(self._body))
        self._body = []
        self._parser = httptools.HttpRequestParser(self)

    def _fill(self, body: bytearray, size_bytes: int) -> None:
        self._continue = False
        self._body_bytes += size_bytes
        self._hold(size_bytes)
        if self._host.held_bytes > self._limits.held_bytes:
            self._refuse(_full())
        elif self._body_bytes == len(body):
            self._direct = None
            self._take(body)

    def _take(self, body: bytes | bytearray) -> None:
        """A whole request is here: it waits for its turn."""
        self._stage = Stage.IDLE
        self._continue = False
        self._last = not self._keeps
        self._queue.append(Request(self._method, self._path, self._query, self._headers, body))

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
        if self._stage is Stage.HEAD and self._fed_bytes > limits.head_bytes + 256:
            self._refuse(DeviceError("head_too_large", "The headers are too large."))
        if self._stage is Stage.BODY and (
            self._fed_bytes > CHUNKING_FACTOR * limits.body_bytes + limits.head_bytes
        ):
            self._refuse(self._too_large())

    def _too_large(self) -> DeviceError:
        return DeviceError(
            "body_too_large", f"A body may have {self._limits.body_bytes} bytes.", field="body"
        )

    def _stop(self, error: EdgefleetError) -> NoReturn:
        """Refuse from inside the parser."""
        self._refusal = error
        raise _StopParsing

    def _refuse(self, error: EdgefleetError) -> None:
        """Answer ``error`` when its turn comes, and read no further request."""
        self._last = True
        self._continue = False
        self._stage = Stage.IDLE
        if self._direct is None:
            self._hold(-sum(map(len, self._body)) - FRAGMENT_COST_BYTES * len(self._body))
        else:
            self._hold(-self._body_bytes)
            self._direct = None
        self._body.clear()
        self._queue.append(self._host.render_error(error))

    def _work(self) -> None:
        """Answer what waits, in order, until an answer takes time or the client stops reading."""
        for _ in range(self._limits.pipelined):
            if self._running or self._blocked or not self._queue or self._transport is None:
                break
            item = self._queue.popleft()
            if isinstance(item, Reply):
                self._send(item, to_head=False, closes=True)
                self._linger()
                return
            self._answer(item)
        else:
            if self._queue and not self._running:  # give other connections a turn
                self._running = True
                self._loop.call_soon(self._go_on)
        if self._continue and not self._running and not self._queue:
            self._continue = False
            self._out().write(_CONTINUE)
        self._set_reading()

    def _go_on(self) -> None:
        self._running = False
        self._work()

    def _answer(self, request: Request) -> None:
        try:
            answer = self._host.handler(request)
            if not isinstance(answer, Reply):
                future = asyncio.ensure_future(answer, loop=self._loop)
                future.add_done_callback(partial(self._answered, request))
                self._running = True
                self._deadline = _NEVER
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            answer = self._failure(error)
        self._reply(request, answer)

    def _answered(self, request: Request, future: "asyncio.Future[Reply]") -> None:
        self._running = False
        self._now = self._loop.time()
        if future.cancelled():
            reply = self._failure(DeviceError("overloaded", "The server is stopping."))
        elif (error := future.exception()) is not None:
            reply = self._failure(error)
        else:
            reply = future.result()
        self._reply(request, reply)
        self._work()

    def _failure(self, error: BaseException) -> Reply:
        if not isinstance(error, EdgefleetError):
            self._loop.call_exception_handler(
                {"message": "A request handler failed", "exception": error}
            )
            error = InternalError("internal", "The request could not be answered.")
        return self._host.render_error(error)

    def _reply(self, request: Request, reply: Reply) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._hold(-len(request.view))
        if self._host.draining and self._stage is Stage.IDLE:
            self._last = True
        to_head, closes = request.method == "HEAD", self._last and not self._queue
        try:
            self._send(reply, to_head=to_head, closes=closes)
        except (EdgefleetError, ValueError) as error:  # the reply is not one that can be sent
            self._send(self._failure(error), to_head=to_head, closes=closes)
        if closes:
            self._transport.close()
        elif not self._blocked:
            self._rest()

    def _send(self, reply: Reply, *, to_head: bool, closes: bool) -> None:
        transport = self._out()
        for piece in reply_bytes(reply, self._host.date, to_head=to_head, closes=closes):
            transport.write(piece)

    def _linger(self) -> None:
        """Let a refused client read the refusal: closing on unread bytes would reset it."""
        transport = self._out()
        self._lingering = True
        self._now = self._loop.time()
        self._deadline = self._now + self._limits.linger_s
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()

    def _rest(self) -> None:
        """Start the clock for what the client should do next."""
        match self._stage:
            case Stage.IDLE:
                self._deadline = self._now + self._limits.idle_s
            case Stage.HEAD:
                self._deadline = self._now + self._limits.head_s
            case Stage.BODY:
                self._deadline = self._now + self._limits.body_s

    def _set_reading(self) -> None:
        """Stop reading from a client that has enough waiting, or does not read itself."""
        if self._transport is None or self._transport.is_closing():
            return
        queue = self._queue
        enough = len(queue) >= self._limits.pipelined or (
            bool(queue) and self._held_bytes > self._limits.body_bytes
        )
        reading = not self._blocked and not enough
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _hold(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        self._host.held_bytes += size_bytes

    def _out(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionError("The client has gone.")
        return self._transport


def _full() -> DeviceError:
    return DeviceError("overloaded", "Too many bodies are in memory.")
