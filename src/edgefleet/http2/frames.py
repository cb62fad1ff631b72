"""The frames of HTTP/2: constants, and the encoding of those that a server sends.

Source: RFC 9113, sections 4, 6 and 7.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9  # of each frame
SMALLEST_FRAME_BYTES: Final = 16_384  # the payload that each peer must accept
LARGEST_FRAME_BYTES: Final = (1 << 24) - 1
LARGEST_WINDOW: Final = (1 << 31) - 1
FIRST_WINDOW: Final = 65_535
STREAM_MASK: Final = 0x7FFF_FFFF

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20


class Setting(IntEnum):
    """The settings of RFC 9113 section 6.5.2."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class ErrorCode(IntEnum):
    """The error codes of RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(Exception):  # noqa: N818 - a fault of the client, ends the connection
    """The client broke the protocol, or a limit: the connection ends with GOAWAY."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StreamFault(Exception):  # noqa: N818 - a fault of the client, ends one stream
    """The client broke the protocol on one stream: the stream ends with RST_STREAM."""

    def __init__(self, stream: int, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.stream = stream
        self.code = code
        self.text = text


_HEAD: Final = struct.Struct(">HBBBI")
_SETTING: Final = struct.Struct(">HI")
_LONG: Final = struct.Struct(">I")
_LONGS: Final = struct.Struct(">II")


def frame_head(size_bytes: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of ``size_bytes``."""
    return _HEAD.pack(size_bytes >> 8, size_bytes & 0xFF, kind, flags, stream)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The pairs of identifier and value of a SETTINGS payload of whole pairs."""
    return list(_SETTING.iter_unpack(payload))


def settings_frame(settings: Iterable[tuple[Setting, int]]) -> bytes:
    payload = b"".join(_SETTING.pack(name, value) for name, value in settings)
    return frame_head(len(payload), SETTINGS, 0, 0) + payload


def window_update_frame(stream: int, count: int) -> bytes:
    return frame_head(4, WINDOW_UPDATE, 0, stream) + _LONG.pack(count)


def rst_stream_frame(stream: int, code: int) -> bytes:
    return frame_head(4, RST_STREAM, 0, stream) + _LONG.pack(code)


def ping_ack_frame(payload: bytes) -> bytes:
    return frame_head(8, PING, ACK, 0) + payload


def goaway_frame(last_stream: int, code: int, text: str = "") -> bytes:
    payload = _LONGS.pack(last_stream, code) + text.encode("ascii", "replace")[:256]
    return frame_head(len(payload), GOAWAY, 0, 0) + payload


def read_long(payload: bytes) -> int:
    """The first four bytes as a number without a sign."""
    number: int = _LONG.unpack_from(payload)[0]
    return number
