"""The listener and its connections: the shell around ``ServerConnection``."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from edgefleet.base.errors import Overloaded
from edgefleet.base.listening import drain, tcp_socket
from edgefleet.base.places import Place, Places, peer_of
from edgefleet.http2.connection import ServerConnection
from edgefleet.http2.frames import ErrorCode
from edgefleet.http2.header_block import Headers
from edgefleet.http2.limits import BACKLOG, RECEIVE_BYTES, REFUSED, ConnectionLimits
from edgefleet.http2.stream import BodyReceived, Event, RequestBegun

_SLOWEST_SWEEP_S: Final = 1.0
_FASTEST_SWEEP_S: Final = 0.02
_SMALL_BYTES: Final = 64 << 10  # joined into one piece before it is sent

Wanted = Callable[["ServerStream"], "Receiver"]


class Receiver(Protocol):
    """The handler of one request. Its methods run on the event loop, in the order of the bytes."""

    def received(self, data: memoryview) -> None:
        """A part of the body, valid during the call. ``ServerStream.consume`` makes room again."""
        ...

    def ended(self) -> None:
        """The request is complete."""
        ...

    def aborted(self, code: int) -> bool:
        """The stream has ended before the reply. Returns whether work for it still runs.

        The stream counts until the handler calls ``ServerStream.release``, then.
        """
        ...

    def sent(self) -> None:
        """The bytes of the reply were given to the socket, after ``ServerStream.when_sent``."""
        ...


class Listener:
    """A listening socket and its connections. Created by ``listen``."""

    def __init__(self, handler: Wanted, limits: ConnectionLimits) -> None:
        self.handler = handler
        self.limits = limits
        self.connections: set[Connection] = set()
        self.places = Places(
            limits.connections, limits.peer_connections, limits.reserved_connections
        )
        self.draining = False
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.port = 0
        self.loop = asyncio.get_running_loop()
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        shortest_s = min(limits.head_s, limits.body_s, limits.idle_s, limits.write_s)
        self._sweep_s = max(_FASTEST_SWEEP_S, min(_SLOWEST_SWEEP_S, shortest_s / 4))

    async def open(self, host: str, port: int) -> None:
        """Start to accept connections."""
        listening = tcp_socket(host, port)
        self.port = listening.getsockname()[1]
        self._server = await self.loop.create_server(
            lambda: Connection(self), sock=listening, backlog=BACKLOG
        )
        self._sweeper = self.loop.call_later(self._sweep_s, self._sweep)

    async def close(self) -> None:
        """Stop accepting, send GOAWAY, answer open streams. Aborts after ``drain_s`` seconds."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self.draining = True
        server.close()
        await drain(self.connections, self._empty, self.limits.drain_s)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await server.wait_closed()

    def closed(self, connection: "Connection") -> None:
        """Forget a closed connection."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._empty.set()

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in tuple(self.connections):
            connection.sweep(now, self._sweep_s)
        self._sweeper = self.loop.call_later(self._sweep_s, self._sweep)


async def listen(
    handler: Wanted, *, host: str = "127.0.0.1", port: int = 0, limits: ConnectionLimits
) -> Listener:
    """Serve HTTP/2 without TLS ("prior knowledge") on a TCP port; 0 is any free port.

    ``handler`` is called with each request's stream on the event loop, and returns what receives
    its body. Raises OperatorError ``address_in_use`` or ``setting_invalid``.
    """
    listener = Listener(handler, limits)
    await listener.open(host, port)
    return listener


class ServerStream:
    """A request and its reply, as a handler sees them. Calls after the end do nothing."""

    __slots__ = ("_connection", "_core", "headers", "id")

    def __init__(self, connection: "Connection", number: int, headers: Headers) -> None:
        self._connection = connection
        self._core = connection.core
        self.id = number
        self.headers = headers

    @property
    def peer(self) -> str:
        """The address of the client."""
        return self._connection.peer

    @property
    def crowded(self) -> Overloaded | None:
        """Why this stream is of a reserved connection: only urgent requests may be answered."""
        return self._connection.crowded

    @property
    def is_open(self) -> bool:
        """Whether the reply can still reach the client."""
        return self.id in self._core.streams

    @property
    def unsent_bytes(self) -> int:
        """The bytes of the reply that wait for the client."""
        stream = self._core.streams.get(self.id)
        return 0 if stream is None else stream.unsent_bytes

    def reply(self, block: bytes, data: bytes, trailers: bytes) -> None:
        """Send a whole reply: head and trailers as header blocks."""
        self._core.reply(self.id, block, data, trailers)
        self._connection.wrote()

    def respond(self, block: bytes, *, ends: bool = False) -> None:
        """Send the head of the reply."""
        self._core.respond(self.id, block, ends=ends)
        self._connection.wrote()

    def send(
        self, data: bytes | memoryview, *, ends: bool = False, trailers: bytes | None = None
    ) -> None:
        """Send a part of the body; the bytes must not change any more."""
        self._core.send(self.id, data, ends=ends, trailers=trailers)
        self._connection.wrote()

    def when_sent(self) -> None:
        """Call ``Receiver.sent`` once ``unsent_bytes`` is 0, if it is not."""
        stream = self._core.streams.get(self.id)
        if stream is not None:
            stream.wants_sent = True

    def consume(self, count: int) -> None:
        """The handler has taken ``count`` bytes of the body."""
        self._core.consume(self.id, count)
        self._connection.wrote()

    def hurry(self, *, hurried: bool) -> None:
        """Whether the client must go on with the body within ``body_s``. True at first."""
        stream = self._core.streams.get(self.id)
        if stream is not None and stream.hurried is not hurried:
            stream.hurried = hurried
            stream.received_at = self._core.now

    def reset(self, code: ErrorCode) -> None:
        """End the stream with an error code. ``Receiver.aborted`` is not called."""
        self._core.reset(self.id, code)
        self._connection.forget(self.id)
        self._connection.wrote()

    def release(self) -> None:
        """The work for a stream that was aborted has ended."""
        self._core.release(self.id)


class Connection(asyncio.BufferedProtocol):
    """One client's connection."""

    def __init__(self, listener: Listener) -> None:
        self.core = ServerConnection(listener.limits)
        self._listener = listener
        self._limits = listener.limits
        self._transport: asyncio.Transport | None = None
        self._receivers: dict[int, Receiver] = {}
        self._blocked = False  # the client does not read what was sent
        self._busy = False  # events are handled: what is written waits for the end
        self._flush_soon = False
        self._active_at = self.core.now = listener.loop.time()
        self._unread_at = 0.0  # since when the client does not read
        self._unread_bytes = 0
        self._place = Place.NONE
        self.peer = ""
        self.crowded: Overloaded | None = None

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        listener, limits = self._listener, self._limits
        self.peer = peer_of(transport.get_extra_info("peername"))
        taken = listener.places.acquire(self.peer)
        self._place, self.crowded = taken.place, taken.refusal
        listener.connections.add(self)
        most = limits.connections + limits.reserved_connections + REFUSED
        if len(listener.connections) > most:
            self._transport.abort()
            return
        if listener.draining:
            self.core.fail(ErrorCode.ENHANCE_YOUR_CALM, "The server is stopping.")
        elif self._place is Place.NONE and self.crowded is not None:
            self.core.fail(ErrorCode.ENHANCE_YOUR_CALM, self.crowded.message)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._listener.places.free(self.peer, self._place)
        self._place = Place.NONE
        receivers, self._receivers = self._receivers, {}
        for number, receiver in receivers.items():
            self._abort(number, receiver, ErrorCode.CANCEL)
        self._listener.closed(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.core.now = self._active_at = self._listener.loop.time()
        self._busy = True
        try:
            self._handle(self.core.receive(self._listener.buffer[:nbytes]))
        finally:
            self._busy = False
        self._flush()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._blocked = True
        if self._transport is not None:
            self._unread_at = self._listener.loop.time()
            self._unread_bytes = self._transport.get_write_buffer_size()
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._flush()

    # Called by the listener.

    def sweep(self, now: float, elapsed_s: float) -> None:
        """Act on the deadlines that have passed."""
        transport = self._transport
        if transport is None:
            return
        self.core.now = now
        if self._blocked and now - self._unread_at > self._limits.write_s:
            unread_bytes = transport.get_write_buffer_size()
            if unread_bytes >= self._unread_bytes:
                transport.abort()
                return
            self._unread_at, self._unread_bytes = now, unread_bytes
        quiet_s = now - self._active_at
        reader = self.core.reader
        if quiet_s > self._limits.head_s and (reader.block_begun or not reader.begun):
            self.core.fail(ErrorCode.PROTOCOL_ERROR, "The head of a request did not arrive.")
        elif quiet_s > self._idle_s() and not self.core.streams:
            self.core.shut_down()
        self._handle(self.core.sweep(elapsed_s))
        self._flush()

    def _idle_s(self) -> float:
        limits = self._limits
        return limits.idle_s if self.crowded is None else limits.reserved_idle_s

    def drain(self) -> None:
        """Send GOAWAY, and close after the last reply."""
        self.core.shut_down()
        self._flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Called by streams.

    def wrote(self) -> None:
        """Something may be sent: now if a handler was called back, else after all events."""
        if not self._busy and not self._flush_soon:
            self._flush_soon = True
            self._listener.loop.call_soon(self._flush)

    def forget(self, number: int) -> None:
        self._receivers.pop(number, None)

    def _handle(self, events: list[Event]) -> None:
        receivers = self._receivers
        for event in events:
            number = event.stream
            try:
                if isinstance(event, BodyReceived):
                    receiver = receivers.get(number)
                    if receiver is not None:
                        receiver.received(event.data)
                        if event.ended:
                            receiver.ended()
                elif isinstance(event, RequestBegun):
                    receiver = self._listener.handler(ServerStream(self, number, event.headers))
                    receivers[number] = receiver
                    if event.ended:
                        receiver.ended()
                else:
                    self._abort(number, receivers.pop(number, None), event.code)
            except Exception as error:  # noqa: BLE001 - a fault of one handler ends its stream
                self._failed(number, error)

    def _abort(self, number: int, receiver: Receiver | None, code: int) -> None:
        if receiver is None or not receiver.aborted(code):
            self.core.release(number)

    def _failed(self, number: int, error: Exception) -> None:
        self._listener.loop.call_exception_handler(
            {"message": "A handler of a stream failed", "exception": error}
        )
        self.core.reset(number, ErrorCode.INTERNAL_ERROR)
        self.forget(number)

    def _flush(self) -> None:
        """Send what may be sent; close once nothing is left to do."""
        self._flush_soon = False
        transport = self._transport
        core = self.core
        while transport is not None and not self._blocked and not transport.is_closing():
            pieces = core.pieces()
            if not pieces:
                break
            if len(pieces) == 1:
                transport.write(pieces[0])
            elif sum(map(len, pieces)) < _SMALL_BYTES:
                transport.write(b"".join(pieces))
            else:
                transport.writelines(pieces)
        if core.outbox.sent:
            sent, core.outbox.sent = core.outbox.sent, []
            for number in sent:
                receiver = self._receivers.get(number)
                if receiver is not None:
                    receiver.sent()
        if len(self._receivers) > len(core.streams):
            for number in self._receivers.keys() - core.streams.keys():
                del self._receivers[number]
        if core.closing or core.draining:
            self._close_if_done()

    def _close_if_done(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._blocked:
            return
        if self.core.closing or not self.core.streams:
            transport.close()
