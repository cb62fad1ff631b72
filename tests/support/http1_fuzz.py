"""Feeds bytes to a connection in memory. Equal bytes give equal answers, however they are split."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from edgefleet.base.errors import OperatorError
from edgefleet.base.places import Places
from edgefleet.http1.connection import Connection
from edgefleet.http1.known_heads import KnownHeads
from edgefleet.http1.limits import ConnectionLimits
from edgefleet.http1.message import Reply, Request, problem_reply
from edgefleet.http1.reader import Room
from support.http1_wire import chunked, get, post

LIMITS = ConnectionLimits(head_bytes=2_000, body_bytes=3_000, buffered_bytes=100_000, pipelined=4)

CONVERSATIONS: tuple[bytes, ...] = (
    get("/a%20b?c=d", "X-Long-Name: " + "v" * 50) + post("/b", b"body") + get("/c"),
    chunked("/a", b"one", b"t" * 40, b"three") + post("/later", b"x" * 90) + get("/d"),
    get("/later/1") + get("/2") + get("/later/3") + get("/boom") + get("/4"),
    post("/a", b"x" * 200, "Expect: 100-continue") + get("/b", "Connection: close") + get("/c"),
    get("/later") + post("/a", b"x" * 20, "Expect: 100-continue") + get("/later"),
    get("/a") + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get("/smuggled"),
    b"\r\n" + get("/a", "Upgrade: h2c", "Connection: upgrade") + get("/b") + get("/bad/%ff"),
    b"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nabcde\r\n0\r\nHost: trailer\r\n\r\n" + b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n",
    b"".join(get(f"/{number}") for number in range(20)),
)


class FuzzHost:
    """The interface of a listener, without a socket. ``body_room`` gives each body its buffer.

    ``heads`` are those of earlier connections.
    """

    def __init__(self, body_room: Room | None = None, heads: KnownHeads | None = None) -> None:
        self.render_error = problem_reply
        self.limits = LIMITS
        self.connections: set[Connection] = set()
        self.room = body_room
        self.places = Places(LIMITS.connections)
        self.urgent = lambda _: False
        self.buffered_bytes = 0
        self.draining = False
        self.date = b"date: today\r\n"
        self.heads = heads or KnownHeads()
        self.buffer = memoryview(bytearray(4_096))
        self.requests = 0

    def handler(self, request: Request) -> Any:
        self.requests += 1
        if request.path == "/boom":
            raise OperatorError("not_found", "There is none.")
        said = f"{request.method} {request.path} ?{request.query} {sorted(request.headers)} "
        reply = Reply(200, said.encode() + request.body)
        if request.path.startswith("/later"):
            future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, reply)
            return future
        return reply

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)


class MemoryTransport(asyncio.Transport):
    """Keeps the written bytes. After ``room`` unread bytes it pauses the writer."""

    def __init__(self, connection: Connection, room: int) -> None:
        super().__init__()
        self.written = bytearray()
        self.ended = False
        self.reading = True
        self._connection = connection
        self._room = room
        self._waiting = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "written after the end"
        self.written += data
        was, self._waiting = self._waiting, self._waiting + len(data)
        if was <= self._room < self._waiting:
            self._connection.pause_writing()

    def drain(self) -> None:
        """The client reads everything."""
        was, self._waiting = self._waiting, 0
        if was > self._room:
            self._connection.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self._waiting

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


@contextmanager
def quiet_loop() -> Iterator[tuple[asyncio.AbstractEventLoop, list[dict[str, Any]]]]:
    """A loop, and the contexts passed to its exception handler."""
    loop = asyncio.new_event_loop()
    crashes: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: crashes.append(context))
    try:
        yield loop, crashes
    finally:
        loop.close()


def converse(
    loop: asyncio.AbstractEventLoop,
    pieces: Sequence[bytes],
    *,
    connection_class: type[Connection] = Connection,
    room: int = 1 << 20,
    body_room: Room | None = None,
    heads: KnownHeads | None = None,
) -> bytes:
    """All answers to ``pieces``, without interim 100s, which depend on the split."""
    host = FuzzHost(body_room, heads)

    async def run() -> bytes:
        connection = connection_class(host, asyncio.get_running_loop())
        transport = MemoryTransport(connection, room)
        connection.connection_made(transport)
        for piece in pieces:
            await _until(lambda: transport.reading or transport.ended, transport)
            if transport.ended:
                break
            _deliver(connection, host, piece)
        await _until(lambda: False, transport)
        connection.connection_lost(None)
        assert host.buffered_bytes == 0, "a body is still counted"
        assert not host.connections
        return bytes(transport.written)

    answered = loop.run_until_complete(run())
    return answered.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")


def vanish(
    loop: asyncio.AbstractEventLoop,
    data: bytes,
    *,
    connection_class: type[Connection] = Connection,
    room: int = 1 << 20,
) -> None:
    """Send ``data`` and disconnect before reading. No state may remain."""
    host = FuzzHost()

    async def run() -> None:
        connection = connection_class(host, asyncio.get_running_loop())
        transport = MemoryTransport(connection, room)
        connection.connection_made(transport)
        _deliver(connection, host, data)
        transport.ended = True
        connection.connection_lost(ConnectionResetError())
        for _ in range(10):
            await asyncio.sleep(0)
        connection.sweep(float("inf"))
        assert host.buffered_bytes == 0, "a body is still counted"

    loop.run_until_complete(run())


def _deliver(connection: Connection, host: FuzzHost, piece: bytes) -> None:
    """Deliver bytes as a loop does: into the connection's buffer, up to its size."""
    while piece:
        buffer = connection.get_buffer(-1)
        size = min(len(buffer), len(piece))
        assert size, "the connection gives no room"
        buffer[:size] = piece[:size]
        connection.buffer_updated(size)
        buffer[:size] = bytes(size) if buffer.obj is host.buffer.obj else piece[:size]
        piece = piece[size:]


async def _until(done: Any, transport: MemoryTransport) -> None:
    """Run the loop and the client until ``done``, or until nothing more can happen."""
    quiet = 0
    while quiet < 3 and not done():
        before = len(transport.written)
        for _ in range(4):
            await asyncio.sleep(0)
        transport.drain()
        quiet = quiet + 1 if len(transport.written) == before else 0


def find_split_that_differs(
    connection_class: type[Connection] = Connection,
    *,
    seed: int = 1,
    room: int = 1 << 20,
    body_room: Room | None = None,
    heads: KnownHeads | None = None,
) -> bytes | None:
    """The first conversation with other answers when split. None if there is none.

    With ``heads`` the split ones have the heads of all earlier ones.
    """
    draw = random.Random(seed)
    with quiet_loop() as (loop, _):
        for data in CONVERSATIONS:
            whole = converse(loop, [data])
            if heads is not None and converse(loop, [data], heads=heads) != whole:
                return data
            cuts = [[at] for at in range(1, len(data))]
            cuts += [sorted(draw.sample(range(1, len(data)), 12)) for _ in range(30)]
            cuts.append(list(range(1, len(data))))
            for cut in cuts:
                edges = [0, *cut, len(data)]
                pieces = [data[a:b] for a, b in pairwise(edges)]
                got = converse(
                    loop,
                    pieces,
                    connection_class=connection_class,
                    room=room,
                    body_room=body_room,
                    heads=heads,
                )
                if got != whole:
                    return data
    return None


def mutated(draw: random.Random, data: bytes) -> bytes:
    """``data`` with a few bytes changed, left out, doubled or moved."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changed))
        match draw.randrange(4):
            case 0:
                changed[at] = draw.randrange(256)
            case 1:
                del changed[at : at + draw.randint(1, 9)]
            case 2:
                changed[at:at] = changed[at : at + draw.randint(1, 30)]
            case _:
                changed[at:at] = draw.choice([b"\r\n", b"\n", b"\0", b": ", b"0\r\n\r\n", b"\xff"])
        if not changed:
            return b"\0"
    return bytes(changed)


def statuses(answered: bytes) -> list[int]:
    """The status of each answer. Fails if the bytes are not a sequence of complete answers."""
    found: list[int] = []
    while answered:
        head, end, rest = answered.partition(b"\r\n\r\n")
        assert end, "an answer was cut"
        assert head.startswith(b"HTTP/1.1 "), answered[:100]
        found.append(int(head.split()[1]))
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields[b"content-length"])
        if not rest.startswith(b"HTTP/1.1 ") or size == 0:  # else: the answer to a HEAD
            assert len(rest) >= size or not rest, "an answer was cut"
            rest = rest[size:]
        answered = rest
    return found
