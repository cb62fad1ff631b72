"""Messages of gRPC in the body of a stream: a flag, four bytes of size, then the message.

Source: github.com/grpc/grpc (doc/PROTOCOL-HTTP2.md, doc/compression.md).
"""

import gzip
import zlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from edgefleet.serving.grpc.status import CallFailed, Code

PREFIX_BYTES: Final = 5
LARGE_BYTES: Final = 64 << 10  # messages of this size or more are received into memory of ``Room``
COMPRESS_BYTES: Final = 1 << 10  # shorter replies are not compressed
ENCODINGS: Final = b"identity,deflate,gzip"
_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_FIRST_BYTES: Final = 64 << 10
_LEVEL: Final = 1

Room = Callable[[int, memoryview], memoryview | None]
"""Memory for a large message of a size, given the first bytes of it. None: there is none free."""


class Message(NamedTuple):
    """A message as it came."""

    compressed: bool
    data: memoryview


class MessageReader:
    """Puts messages together from the parts in which they arrive."""

    __slots__ = ("_filled", "_limit_bytes", "_message", "_rest", "_room", "_size")

    def __init__(self, limit_bytes: int, room: Room) -> None:
        self._limit_bytes = limit_bytes
        self._room = room
        self._rest = b""  # of the prefix
        self._size = -1  # of the message that is being read, with its flag in the top bit
        self._message: memoryview | None = None
        self._filled = 0

    @property
    def is_between(self) -> bool:
        """Whether no message is incomplete."""
        return self._message is None and not self._rest

    def feed(self, data: memoryview) -> list[Message]:
        """The messages that are complete with ``data``. Raises CallFailed."""
        if not self._rest and self._message is None and len(data) >= PREFIX_BYTES:
            size = int.from_bytes(data[1:PREFIX_BYTES], "big")
            if len(data) == PREFIX_BYTES + size and data[0] <= 1 and size < LARGE_BYTES:
                return [Message(data[0] == 1, memoryview(bytes(data[PREFIX_BYTES:])))]
        messages: list[Message] = []
        while len(data) or (self._message is not None and self._filled == len(self._message)):
            if self._message is None:
                data = self._begin(data)
                continue
            part = data[: len(self._message) - self._filled]
            self._message[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == len(self._message):
                messages.append(Message(bool(self._size >> 32), self._message.toreadonly()))
                self._message = None
        return messages

    def _begin(self, data: memoryview) -> memoryview:
        """Read the prefix of the next message. Returns the bytes after it."""
        wanted = PREFIX_BYTES - len(self._rest)
        self._rest += bytes(data[:wanted])
        data = data[wanted:]
        if len(self._rest) < PREFIX_BYTES:
            return data
        flag, size = self._rest[0], int.from_bytes(self._rest[1:], "big")
        self._rest = b""
        if flag > 1:
            raise CallFailed(Code.INTERNAL, f"The flag of a message is 0 or 1, not {flag}.")
        if size > self._limit_bytes:
            raise CallFailed(
                Code.RESOURCE_EXHAUSTED,
                f"The message has {size} bytes; {self._limit_bytes} are allowed.",
                reason="body_too_large",
            )
        self._size = flag << 32 | size
        self._filled = 0
        self._message = self._memory(size, data)
        return data

    def _memory(self, size: int, data: memoryview) -> memoryview:
        if size >= LARGE_BYTES:
            room = self._room(size, data)
            if room is not None:
                return room.cast("B") if room.format != "B" else room
        return memoryview(bytearray(size))


def inflate(message: Message, encoding: bytes, limit_bytes: int) -> memoryview:
    """The message without compression. Raises CallFailed."""
    if not message.compressed:
        return message.data
    if encoding not in (b"gzip", b"deflate"):
        raise CallFailed(
            Code.INTERNAL, "A message is compressed, but grpc-encoding names no compression."
        )
    reader = zlib.decompressobj(_GZIP_BITS if encoding == b"gzip" else _ZLIB_BITS)
    try:
        data = reader.decompress(message.data, limit_bytes + 1)
    except zlib.error as error:
        raise CallFailed(
            Code.INTERNAL, f"A message is not valid {encoding.decode()}: {error}."
        ) from error
    if len(data) > limit_bytes:
        raise CallFailed(
            Code.RESOURCE_EXHAUSTED,
            f"The message has more than the {limit_bytes} bytes that are allowed.",
            reason="body_too_large",
        )
    if not reader.eof or reader.unused_data:
        raise CallFailed(Code.INTERNAL, f"A message is not valid {encoding.decode()}.")
    return memoryview(data)


def frame(data: bytes, encoding: bytes = b"identity") -> bytes:
    """A message with its prefix, compressed if that is worth while."""
    if encoding == b"identity" or len(data) < COMPRESS_BYTES:
        return b"\x00%s%s" % (len(data).to_bytes(4, "big"), data)
    if encoding == b"gzip":
        data = gzip.compress(data, _LEVEL, mtime=0)
    else:
        data = zlib.compress(data, _LEVEL)
    return b"\x01%s%s" % (len(data).to_bytes(4, "big"), data)


_UNITS_S: Final[Mapping[str, float]] = {
    "H": 3600.0,
    "M": 60.0,
    "S": 1.0,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
}


def timeout_s(header: bytes) -> float:
    """The value of grpc-timeout in seconds. Raises CallFailed."""
    text = header.decode("ascii", "replace")
    if 2 <= len(text) <= 9 and text[:-1].isdecimal() and text[-1] in _UNITS_S:
        return int(text[:-1]) * _UNITS_S[text[-1]]
    raise CallFailed(Code.INTERNAL, "grpc-timeout is 1 to 8 digits and one of H, M, S, m, u, n.")
