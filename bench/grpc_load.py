"""A closed-loop load of gRPC calls: raw HTTP/2 frames on a few connections, one process.

The generator encodes the call once and repeats it, so that it is never the limit. It reads replies
only as far as it must: to count ended streams, and to open the windows of the server again.
"""

import os
import selectors
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = struct.Struct(">HBBBI")
WINDOW = (1 << 31) - 1 - 65_535
TICKS = os.sysconf("SC_CLK_TCK")
FRAME_BYTES = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return HEAD.pack(size >> 8, size & 255, kind, flags, stream) + payload


def _text(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def first_block(path: bytes) -> bytes:
    """A header block whose fields enter the table: later blocks are indexes alone."""
    fields = ((b":path", path), (b"te", b"trailers"), (b"content-type", b"application/grpc"))
    literals = b"".join(b"\x40" + _text(name) + _text(value) for name, value in fields)
    authority = b"\x41" + _text(b"bench")
    return b"\x83\x86" + authority + literals


NEXT_BLOCK = b"\x83\x86" + bytes((0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62))


@dataclass
class Client:
    """One connection with ``streams`` calls in flight."""

    address: tuple[str, int]
    path: bytes
    message: bytes
    streams: int
    done: int = 0
    failed: int = 0
    _next: int = 1
    _rest: bytes = b""
    _unsent: list[memoryview] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.socket = socket.create_connection(self.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = frame(4, 0, 0, struct.pack(">HIHI", 4, (1 << 31) - 1, 2, 0))
        self._put(PREFACE + settings + frame(8, 0, 0, struct.pack(">I", WINDOW)))
        self._window = 65_535
        self._first_window = 65_535
        self._waiting = 0
        self.socket.setblocking(False)

    def begin(self) -> None:
        self._call(self.streams)

    def _call(self, count: int) -> None:
        """Begin calls, as far as the window of the connection allows; the others wait."""
        body = b"\0" + struct.pack(">I", len(self.message)) + self.message
        pieces: list[bytes] = []
        while count and self._window >= len(body):
            block = first_block(self.path) if self._next == 1 else NEXT_BLOCK
            pieces.append(frame(1, 4, self._next, block))
            for at in range(0, len(body), FRAME_BYTES):
                last = at + FRAME_BYTES >= len(body)
                pieces.append(frame(0, int(last), self._next, body[at : at + FRAME_BYTES]))
            self._window -= len(body)
            self._next += 2
            count -= 1
        self._waiting = count
        if pieces:
            self._put(b"".join(pieces))

    def _put(self, data: bytes) -> None:
        self._unsent.append(memoryview(data))
        self.flush()

    def flush(self) -> None:
        while self._unsent:
            try:
                sent = self.socket.send(self._unsent[0])
            except BlockingIOError:
                return
            if sent == len(self._unsent[0]):
                self._unsent.pop(0)
            else:
                self._unsent[0] = self._unsent[0][sent:]

    @property
    def wants_write(self) -> bool:
        return bool(self._unsent)

    def read(self) -> None:
        data = self._rest + self.socket.recv(1 << 16)
        at, ended = 0, 0
        while len(data) - at >= 9:
            high, low, kind, flags, stream = HEAD.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end > len(data):
                break
            if kind in (0, 1) and flags & 1:
                ended += 1
            elif kind == 3:
                self.failed += 1
                ended += 1
            elif kind == 4 and not flags & 1:
                self._put(frame(4, 1, 0, b""))
            elif kind == 6 and not flags & 1:
                self._put(frame(6, 1, 0, data[at + 9 : end]))
            elif kind == 8 and stream == 0:
                self._window += struct.unpack_from(">I", data, at + 9)[0]
            elif kind == 7:
                raise SystemExit(f"The server went away: {data[at + 17 : end]!r}")
            at = end
        self._rest = data[at:]
        self.done += ended
        if ended or self._waiting:
            self._call(ended + self._waiting)


def run(clients: list[Client], seconds: float) -> tuple[int, float]:
    """Calls for ``seconds``. Returns the number of ended calls and the time taken."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        before, began = sum(one.done for one in clients), time.perf_counter()
        while time.perf_counter() - began < seconds:
            for key, _ in selector.select(0.5):
                key.data.read()
            for client in clients:
                if client.wants_write:
                    client.flush()
        return sum(one.done for one in clients) - before, time.perf_counter() - began


def cpu_s(pid: int) -> float:
    """The processor time of a process, user and system, in seconds."""
    rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(rest[11]) + int(rest[12])) / TICKS


def private_mib(pid: int) -> float:
    """The private memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
