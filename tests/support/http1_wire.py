"""An http1 listener on a loop in its own thread, and a client that sends given bytes."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from edgefleet.http1.connection import Quick, Urgent
from edgefleet.http1.limits import ConnectionLimits
from edgefleet.http1.server import Handler, Listener, RenderError, listen

GUARD_S = 20.0  # a test that waits this long has failed


class RunningListener:
    """A listener that the test's thread can inspect."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        self.loop = loop
        self.listener = listener
        self.port = listener.port
        self.emptied = threading.Event()
        self.crashes: list[dict[str, Any]] = []
        inner = listener.closed

        def closed(connection: Any) -> None:
            inner(connection)
            if not listener.connections:
                self.emptied.set()

        listener.closed = closed  # type: ignore[method-assign] # watched, not changed
        loop.call_soon_threadsafe(
            loop.set_exception_handler, lambda _, context: self.crashes.append(context)
        )

    def begin_close(self) -> "asyncio.Future[None]":
        return asyncio.run_coroutine_threadsafe(self.listener.close(), self.loop)  # type: ignore[return-value] # a concurrent future, with the same result()

    def connect(self) -> "Raw":
        return Raw(socket.create_connection(("127.0.0.1", self.port), timeout=GUARD_S))


@contextmanager
def running(
    handler: Handler,
    *,
    limits: ConnectionLimits | None = None,
    unix_path: Path | None = None,
    render_error: RenderError | None = None,
    urgent: Urgent | None = None,
    quick: Quick | None = None,
) -> Iterator[RunningListener]:
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> Listener:
        return await listen(
            handler,
            limits=limits,
            unix_path=unix_path,
            render_error=render_error,
            urgent=urgent,
            quick=quick,
        )

    try:
        listener = asyncio.run_coroutine_threadsafe(start(), loop).result(GUARD_S)
        server = RunningListener(loop, listener)
        try:
            yield server
        finally:
            server.begin_close().result(GUARD_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(GUARD_S)
        loop.close()


@dataclass(frozen=True)
class Got:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The stable code of a Problem."""
        return str(msgspec.json.decode(self.body)["code"])


class Raw:
    """A connection that sends only the test's bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, *, to_head: bool = False) -> Got:
        """The next answer."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while (row := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = row.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        status = int(line.split()[1])
        length = 0 if to_head or status in (100, 204, 304) else int(headers["content-length"])
        body = self._file.read(length)
        assert len(body) == length
        return Got(status, headers, body)

    def ended(self) -> bool:
        """Wait for the server to close. Returns whether it sent nothing more before that."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def reset(self) -> None:
        """Reset the connection: the server gets an error, not an end of file."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def post(path: str, body: bytes, *lines: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def chunked(path: str, *chunks: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
