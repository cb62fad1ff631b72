"""A client of ``ServerConnection`` without a socket: it writes frames and reads what comes back."""

import struct
from collections import defaultdict
from typing import Any, NamedTuple

from hpack import Decoder, Encoder

from edgefleet.http2 import frames
from edgefleet.http2.connection import ServerConnection
from edgefleet.http2.limits import ConnectionLimits
from edgefleet.http2.stream import BodyReceived, Event, RequestBegun, StreamReset

GET = ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test"))
POST = ((":method", "POST"), *GET[1:])


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.frame_head(len(payload), kind, flags, stream) + payload


def split(data: bytes) -> list[Frame]:
    found: list[Frame] = []
    while data:
        high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data)
        end = 9 + (high << 8 | low)
        assert end <= len(data), "the server sent a part of a frame"
        found.append(Frame(kind, flags, stream, data[9:end]))
        data = data[end:]
    return found


class Wire:
    """A connection with its preface sent. ``events`` are those of the last ``send``."""

    def __init__(self, limits: ConnectionLimits | None = None, *settings: tuple[int, int]) -> None:
        self.core = ServerConnection(limits or ConnectionLimits())
        self.encoder = Encoder()
        self._decoder = Decoder()
        self.events: list[Event] = []
        self.bodies: dict[int, bytes] = defaultdict(bytes)
        payload = b"".join(struct.pack(">HI", *one) for one in settings)
        self.send(frames.PREFACE + frame(frames.SETTINGS, 0, 0, payload))
        self.first = self.read()

    def send(self, data: bytes) -> list[Event]:
        self.events = self.core.receive(memoryview(data))
        for event in self.events:
            if isinstance(event, BodyReceived):
                self.bodies[event.stream] += bytes(event.data)
        return self.events

    def block(self, fields: tuple[tuple[str, str], ...] = GET) -> bytes:
        encoded: bytes = self.encoder.encode(fields)
        return encoded

    def request(
        self, stream: int, fields: tuple[tuple[str, str], ...] = GET, *, ends: bool = True
    ) -> list[Event]:
        flags = frames.END_HEADERS | (frames.END_STREAM if ends else 0)
        return self.send(frame(frames.HEADERS, flags, stream, self.block(fields)))

    def data(self, stream: int, data: bytes, *, ends: bool = False) -> list[Event]:
        return self.send(frame(frames.DATA, int(ends), stream, data))

    def read(self) -> list[Frame]:
        """All that the server sends now."""
        pieces: list[bytes] = []
        while more := self.core.pieces():
            pieces += map(bytes, more)
        return split(b"".join(pieces))

    def fields(self, one: Frame) -> dict[str, str]:
        return {str(name): str(value) for name, value in self._decoder.decode(one.payload)}

    def window_update(self, stream: int, count: int) -> list[Event]:
        return self.send(frame(frames.WINDOW_UPDATE, 0, stream, struct.pack(">I", count)))

    def reset(self, stream: int) -> list[Event]:
        return self.send(frame(frames.RST_STREAM, 0, stream, struct.pack(">I", 8)))

    def end(self) -> tuple[int, str] | None:
        """The code and text of the server's GOAWAY, if it has sent one."""
        for one in self.read():
            if one.kind == frames.GOAWAY:
                return struct.unpack(">I", one.payload[4:8])[0], one.payload[8:].decode()
        return None

    def resets(self) -> list[tuple[int, int]]:
        """The streams that the server resets now, with their codes."""
        return [
            (one.stream, struct.unpack(">I", one.payload)[0])
            for one in self.read()
            if one.kind == frames.RST_STREAM
        ]


def seen(events: list[Event]) -> list[tuple[Any, ...]]:
    """Events as values that compare."""
    values: list[tuple[Any, ...]] = []
    for one in events:
        if isinstance(one, RequestBegun):
            values.append(("begun", one.stream, one.ended))
        elif isinstance(one, BodyReceived):
            values.append(("body", one.stream, bytes(one.data), one.ended))
        elif isinstance(one, StreamReset):
            values.append(("reset", one.stream, int(one.code)))
    return values
