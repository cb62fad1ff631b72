"""One client's connection. Requests are answered one at a time, in order."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ClassVar, Final, Protocol, cast

from edgefleet.base.errors import DeviceError, EdgefleetError, InternalError, Overloaded
from edgefleet.base.later import Later
from edgefleet.base.places import Place, Places, peer_of
from edgefleet.http1.known_heads import KnownHeads
from edgefleet.http1.limits import REFUSED, ConnectionLimits
from edgefleet.http1.message import Reply, Request, made, reply_bytes
from edgefleet.http1.reader import Memory, ReadStage, RequestReader

Handler = Callable[[Request], Reply | Awaitable[Reply]]
RenderError = Callable[[EdgefleetError], Reply]
Urgent = Callable[[Request], bool]
"""Whether a request must be answered although the listener is full."""

_NEVER: Final = float("inf")
NEXT_SWEEP: Final = -1.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Quick(Protocol):
    """Answers usual requests from their bytes."""

    @property
    def heads(self) -> KnownHeads:
        """The parsed heads of the listener."""
        ...

    def answer(self, data: bytes, date: bytes, /) -> bytes | None:
        """The whole answer to ``data``, the start of a request and what came with it.

        None if the handler must answer it. ``date`` is a whole header line.
        """
        ...


class Host(Memory, Protocol):
    """The part of a listener that its connections use."""

    handler: Handler
    render_error: RenderError
    limits: ConnectionLimits
    connections: "set[Connection]"
    places: Places
    urgent: Urgent
    quick: Quick | None
    draining: bool
    date: bytes  # a whole header line

    def closed(self, connection: "Connection") -> None: ...


class Connection(asyncio.BufferedProtocol):
    """Reads requests and writes replies.

    A handler's future is never cancelled. The handler finishes even if the client has disconnected.
    """

    reader_class: ClassVar[type[RequestReader]] = RequestReader

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._handle = host.handler
        self._limits = host.limits
        self._loop = loop
        self._reader = self.reader_class(host, host.limits)
        self._transport: asyncio.Transport | None = None
        self._deadline = _NEVER  # NEXT_SWEEP: to be set by the next sweep
        self._running = False  # a handler runs, or ``_go_on`` is scheduled
        self._blocked = False  # the client does not read its replies
        self._reading = True
        self._lingering = False
        self._unsent_bytes = 0
        self._place = Place.NONE
        self._crowded: Overloaded | None = None  # why it has no general place

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._reader.peer = peer_of(transport.get_extra_info("peername"))
        taken = self._host.places.acquire(self._reader.peer)
        self._place, self._crowded = taken.place, taken.refusal
        if self._crowded is not None:
            self._handle = self._handle_urgent
        self._deadline = NEXT_SWEEP
        host, limits = self._host, self._limits
        host.connections.add(self)
        if host.draining:
            self._reader.refuse(Overloaded("stopping", "The server is stopping."))
        elif self._place is Place.NONE and self._crowded is not None:
            self._reader.refuse(self._crowded)
        else:
            return
        most = limits.connections + limits.reserved_connections + REFUSED
        if len(host.connections) > most:
            self._transport.abort()
        else:
            self._work()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._reader.forget()
        self._host.places.free(self._reader.peer, self._place)
        self._place = Place.NONE
        self._host.closed(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        reader = self._reader
        if not (self._running or self._blocked or reader.ready) and self._crowded is None:
            request = reader.whole_request(nbytes)
            if request is not None:
                self._answer(request)
                return
        before = (reader.stage, reader.begun)
        reader.received(nbytes)
        if self._crowded is not None and reader.stage is ReadStage.BODY:
            reader.refuse(self._crowded)  # no urgent request has a body
        # A waiting request needs no deadline: its answer sets the next one.
        if (
            not (reader.ready or self._blocked or self._lingering)
            and (reader.stage, reader.begun) != before
        ):
            self._deadline = NEXT_SWEEP
        self._work()

    def eof_received(self) -> bool:
        if self._reader.ended or not (self._running or self._reader.ready):
            return False
        self._reader.ended = True
        return True

    def pause_writing(self) -> None:
        self._blocked = True
        self._unsent_bytes = self._out().get_write_buffer_size()
        self._deadline = self._loop.time() + self._limits.write_s
        self._set_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        if not self._lingering:
            self._deadline = NEXT_SWEEP
        self._set_reading()
        self._work()

    # Called by the listener.

    def sweep(self, now: float) -> None:
        """Set the deadline of the client's next step, or act on it if it has passed.

        So a client has up to the time between two sweeps more, and no reply reads a clock.
        """
        if now < self._deadline or self._transport is None:
            return
        if self._deadline == NEXT_SWEEP:
            self._deadline = now + self._allowed_s()
            return
        if self._lingering:
            self._transport.abort()
        elif self._blocked:
            unsent_bytes = self._transport.get_write_buffer_size()
            if unsent_bytes >= self._unsent_bytes:
                self._transport.abort()
            self._unsent_bytes = unsent_bytes
            self._deadline = now + self._limits.write_s
        elif self._running or self._reader.ready:
            self._deadline = _NEVER
        elif self._reader.stage is ReadStage.IDLE:
            self._transport.close()
        else:
            part = "head" if self._reader.stage is ReadStage.HEAD else "body"
            self._reader.refuse(
                DeviceError(
                    "request_too_slow", f"The {part} of the request did not arrive in time."
                )
            )
            self._work()

    def drain(self) -> None:
        """Close now if no request is in progress, else after the last answer."""
        if self._transport is None or self._running or self._reader.ready:
            return
        if self._reader.stage is ReadStage.IDLE and not self._blocked:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _work(self) -> None:
        """Answer waiting requests in order, until a reply must be awaited or the client blocks."""
        reader = self._reader
        for _ in range(self._limits.pipelined):
            if self._running or self._blocked or self._gone() or not reader.ready:
                break
            self._answer(reader.ready.popleft())
        else:
            if reader.ready and not self._running:  # let other connections run first
                self._running = True
                self._loop.call_soon(self._go_on)
        if self._running or self._blocked or self._gone() or reader.ready:
            self._set_reading()
            return
        if reader.refusal is not None and not self._lingering:
            refusal = self._host.render_error(reader.refusal)
            for piece in reply_bytes(refusal, self._host.date, to_head=False, closes=True):
                self._out().write(piece)
            self._linger()
        elif reader.expects_continue:
            reader.expects_continue = False
            self._out().write(_CONTINUE)
        self._set_reading()

    def _go_on(self) -> None:
        self._running = False
        self._work()

    def _answer(self, request: Request) -> None:
        try:
            answer = self._handle(request)
            if not isinstance(answer, Reply):
                self._wait_for(request, answer)
                return
        except Exception as error:  # noqa: BLE001 - each failure is answered
            answer = self._failure(error)
        self._reply(request, answer)

    def _handle_urgent(self, request: Request) -> Reply | Awaitable[Reply]:
        """The handler of a connection without a general place."""
        if self._crowded is not None and not self._host.urgent(request):
            return self._host.render_error(self._crowded)
        return self._host.handler(request)

    def _wait_for(self, request: Request, answer: Awaitable[Reply]) -> None:
        self._running = True
        self._deadline = _NEVER
        if isinstance(answer, Later):
            answer.then(partial(self._answered, request))
            return
        future = asyncio.ensure_future(answer, loop=self._loop)
        future.add_done_callback(partial(self._finished, request))

    def _finished(self, request: Request, future: "asyncio.Future[Reply]") -> None:
        if future.cancelled():
            self._answered(request, Overloaded("stopping", "The server is stopping."))
        else:
            self._answered(request, future.exception() or future.result())

    def _answered(self, request: Request, answer: Reply | BaseException) -> None:
        self._running = False
        reply = answer if isinstance(answer, Reply) else self._failure(answer)
        self._reply(request, reply)
        reader = self._reader
        if reader.ready or reader.refusal or reader.expects_continue or not self._reading:
            self._work()

    def _failure(self, error: BaseException) -> Reply:
        if not isinstance(error, EdgefleetError):
            self._loop.call_exception_handler(
                {"message": "A request handler failed", "exception": error}
            )
            error = InternalError("internal", "The request could not be answered.")
        return self._host.render_error(error)

    def _reply(self, request: Request, reply: Reply) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if reply.make is not None:
            self._wait_for(request, made(reply))
            return
        host, reader = self._host, self._reader
        reader.account(-len(request.raw_body))
        if (host.draining or self._crowded is not None) and reader.stage is ReadStage.IDLE:
            reader.ended = True
        closes = reader.ended and not reader.ready and reader.refusal is None
        to_head = request.method == "HEAD"
        try:
            pieces = reply_bytes(reply, host.date, to_head=to_head, closes=closes)
        except (EdgefleetError, ValueError) as error:  # the reply cannot be sent
            failure = self._failure(error)
            pieces = reply_bytes(failure, host.date, to_head=to_head, closes=closes)
        for piece in pieces:
            transport.write(piece)
        if closes:
            transport.close()
        elif not self._blocked:
            self._deadline = NEXT_SWEEP

    def _linger(self) -> None:
        """Give the client time to read its refusal: closing on unread bytes sends a reset."""
        transport = self._out()
        self._lingering = True
        self._deadline = self._loop.time() + self._limits.linger_s
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()

    def _allowed_s(self) -> float:
        """The time for the client's next step, in seconds."""
        limits = self._limits
        idle_s = limits.idle_s if self._crowded is None else limits.reserved_idle_s
        return (idle_s, limits.head_s, limits.body_s)[self._reader.stage]

    def _set_reading(self) -> None:
        """Stop reading while enough requests wait or the client does not read its replies."""
        if self._transport is None or self._transport.is_closing():
            return
        reader = self._reader
        enough = len(reader.ready) >= self._limits.pipelined or (
            bool(reader.ready) and reader.buffered_bytes > self._limits.body_bytes
        )
        reading = not self._blocked and not enough
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _gone(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _out(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionError("The client has disconnected.")
        return self._transport
