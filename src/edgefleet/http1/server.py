"""The listener: accepts connections, checks their deadlines, and closes gracefully."""

import asyncio
import contextlib
import os
import socket
import stat
from email.utils import formatdate
from pathlib import Path
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.base.listening import bind, drain, tcp_socket
from edgefleet.base.places import Places
from edgefleet.http1.connection import Connection, Handler, Quick, RenderError, Urgent
from edgefleet.http1.known_heads import KnownHeads
from edgefleet.http1.limits import BACKLOG, RECEIVE_BYTES, ConnectionLimits
from edgefleet.http1.message import problem_reply
from edgefleet.http1.quick import QuickConnection
from edgefleet.http1.reader import Room

__all__ = ["Handler", "Listener", "RenderError", "listen"]

_SLOWEST_SWEEP_S: Final = 1.0
_FASTEST_SWEEP_S: Final = 0.02


async def listen(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unix_path: str | Path | None = None,
    limits: ConnectionLimits | None = None,
    render_error: RenderError | None = None,
    room: Room | None = None,
    urgent: Urgent | None = None,
    quick: Quick | None = None,
) -> "Listener":
    """Serve ``handler`` on a TCP port, or on the Unix socket ``unix_path`` if given.

    Port 0 is any free port. ``handler`` runs on the event loop. A returned Reply is sent at once. A
    returned awaitable delays its own connection only, and is never cancelled. A raised
    EdgefleetError is sent as ``render_error`` renders it (by default as a Problem); any other
    exception is sent as ``internal``. ``room`` gives a large body a buffer, by its size and the
    headers; without one it is received into a growing buffer. ``urgent`` says which requests may
    use the reserved connections; without it, none. ``quick`` is asked for its
    answer before ``handler``. The socket file has mode 0600. Raises OperatorError
    ``address_in_use`` or ``setting_invalid``.
    """
    listener = Listener(
        handler, limits or ConnectionLimits(), render_error or problem_reply, room, urgent
    )
    if quick is not None:
        listener.quick, listener.heads = quick, quick.heads
    if unix_path is not None:
        await listener.open(_unix_socket(Path(unix_path)), Path(unix_path))
    else:
        await listener.open(tcp_socket(host, port), None)
    return listener


class Listener:
    """A listening socket and its connections. Created by ``listen``."""

    def __init__(
        self,
        handler: Handler,
        limits: ConnectionLimits,
        render_error: RenderError,
        room: Room | None = None,
        urgent: Urgent | None = None,
    ) -> None:
        self.room = room
        self.quick: Quick | None = None
        self.urgent: Urgent = urgent or (lambda _: False)
        self.places = Places(
            limits.connections, limits.peer_connections, limits.reserved_connections
        )
        self.handler = handler
        self.limits = limits
        self.render_error = render_error
        self.connections: set[Connection] = set()
        self.heads = KnownHeads()
        self.buffered_bytes = 0
        self.draining = False
        self.date = b""
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.port = 0
        self._loop = asyncio.get_running_loop()
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._unix_path: Path | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_s = max(
            _FASTEST_SWEEP_S,
            min(
                _SLOWEST_SWEEP_S,
                min(limits.head_s, limits.body_s, limits.idle_s, limits.write_s) / 4,
            ),
        )

    async def open(self, listening: socket.socket, unix_path: Path | None) -> None:
        """Start to accept connections on ``listening``."""
        self._unix_path = unix_path
        self._sweep()
        if unix_path is not None:
            self._server = await self._loop.create_unix_server(
                self._connection, sock=listening, backlog=BACKLOG
            )
        else:
            self.port = listening.getsockname()[1]
            self._server = await self._loop.create_server(
                self._connection, sock=listening, backlog=BACKLOG
            )

    async def close(self) -> None:
        """Stop accepting, answer requests in progress, close. Aborts after ``drain_s`` seconds."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self.draining = True
        if self._unix_path is not None:
            with contextlib.suppress(OSError):  # a disk that cannot be written any more
                self._unix_path.unlink(missing_ok=True)
        server.close()
        await drain(self.connections, self._empty, self.limits.drain_s)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await server.wait_closed()

    def closed(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._empty.set()

    def _connection(self) -> Connection:
        return (Connection if self.quick is None else QuickConnection)(self, self._loop)

    def _sweep(self) -> None:
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode("ascii")
        now = self._loop.time()
        for connection in tuple(self.connections):
            connection.sweep(now)
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)


def _unix_socket(path: Path) -> socket.socket:
    """Bind ``path`` with mode 0600. Replaces the socket file of a killed process."""
    if _answers(path):
        raise OperatorError("address_in_use", f"Another process listens on {path}.")
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.fchmod(listening.fileno(), 0o600)  # Linux gives the file this mode when it is bound
    bind(listening, str(path), str(path))
    path.chmod(0o600)
    return listening


def _answers(path: Path) -> bool:
    """Whether a process listens on ``path``. Raises OperatorError if it is not a socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OperatorError("setting_invalid", f"{path} exists and is not a socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        try:
            knock.connect(str(path))
        except OSError:
            return False
    return True
