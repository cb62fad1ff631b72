"""Splits the bytes of a client into frames and checks their form.

The body of a DATA frame is passed on in the parts that arrive. All other frames are small, and
passed on whole.
"""

import struct
from typing import Final, Protocol

from edgefleet.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEAD_BYTES,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_MASK,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    read_long,
)
from edgefleet.http2.limits import CONTINUATIONS, SETTINGS_IN_FRAME, ConnectionLimits

_HEAD: Final = struct.Struct(">HBBBI")
_OF_CONNECTION: Final = frozenset({SETTINGS, PING, GOAWAY})
_OF_STREAM: Final = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION})
_SIZES: Final = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_PRIORITY_BYTES: Final = 5
_SETTING_BYTES: Final = 6
_GOAWAY_BYTES: Final = 8


class Frames(Protocol):
    """The receiver of the frames of a client. See ``ServerConnection``."""

    def on_headers(self, number: int, block: bytes, *, ended: bool, own_parent: bool) -> None: ...

    def on_data_begun(
        self, number: int, frame_bytes: int, body_bytes: int, *, ended: bool
    ) -> bool: ...

    def on_data(self, number: int, data: memoryview, *, ended: bool) -> None: ...

    def on_reset(self, number: int) -> None: ...

    def on_settings(self, payload: bytes) -> None: ...

    def on_ping(self, payload: bytes) -> None: ...

    def on_window_update(self, number: int, count: int) -> None: ...

    def on_fault(self, fault: StreamFault) -> None: ...

    def spend(self) -> None: ...


class FrameReader:
    """Reads the preface and then frames.

    ``begun``: the client has sent the preface. ``block_begun``: a header block has no end yet.
    """

    def __init__(self, frames: Frames, limits: ConnectionLimits) -> None:
        self.begun = False
        self._settings_seen = False
        self._frames = frames
        self._limits = limits
        self._rest = b""  # the first bytes of a frame
        self._skip_bytes = 0  # of a frame that has no use
        self._data_stream = 0  # of the DATA frame that is being read
        self._data_left = 0
        self._data_wanted = False
        self._data_ends = False
        self._padding_left = 0
        self._block: bytearray | None = None
        self._block_stream = 0
        self._block_flags = 0
        self._block_own_parent = False
        self._block_frames = 0
        self._short = min(limits.head_bytes, limits.frame_bytes)

    @property
    def block_begun(self) -> bool:
        """Whether a frame or a header block is incomplete."""
        return self._block is not None or bool(self._rest)

    def feed(self, data: memoryview) -> None:
        """Read ``data``. Raises ConnectionFault."""
        if self._rest:
            data = memoryview(self._rest + data)
            self._rest = b""
        at = 0 if self.begun else self._read_preface(data)
        size = len(data)
        while at < size:
            if self._data_left or self._skip_bytes:
                at = self._read_part(data, at)
                continue
            if size - at < HEAD_BYTES:
                break
            after = self._read_frame(data, at)
            if after is None:
                break
            at = after
        if at < size:
            self._rest = bytes(data[at:])

    def _read_preface(self, data: memoryview) -> int:
        given = bytes(data[: len(PREFACE)])
        if not PREFACE.startswith(given):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "This port accepts HTTP/2 only.")
        if len(given) < len(PREFACE):
            self._rest = given
            return len(data)
        self.begun = True
        return len(PREFACE)

    def _read_frame(self, data: memoryview, at: int) -> int | None:
        """Read one frame, which begins ``at``. Returns its end, None if more is needed."""
        high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
        length: int = high << 8 | low
        number: int = stream & STREAM_MASK
        at += HEAD_BYTES
        is_plain = self._settings_seen and self._block is None
        if is_plain and at + length <= len(data) and length <= self._limits.frame_bytes:
            # The two frames of most requests, without the cases that they are not.
            end = at + length
            try:
                if kind == DATA and flags <= END_STREAM and number and length:
                    ended = flags == END_STREAM
                    if self._frames.on_data_begun(number, length, length, ended=ended):
                        self._frames.on_data(number, data[at:end], ended=ended)
                    return end
                if kind == HEADERS and flags == END_HEADERS and number and length <= self._short:
                    self._frames.on_headers(
                        number, bytes(data[at:end]), ended=False, own_parent=False
                    )
                    return end
            except StreamFault as fault:
                self._frames.on_fault(fault)
                return end
        if length > self._limits.frame_bytes:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "The frame is too large.")
        if not self._settings_seen and kind != SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "The first frame must be SETTINGS.")
        if self._block is not None and (kind != CONTINUATION or number != self._block_stream):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A header block has no end.")
        if kind == DATA:
            return self._begin_data(data, at, length, flags, number)
        if kind > CONTINUATION:
            self._frames.spend()
            self._skip_bytes = length
            return at
        _check_form(kind, flags, number, length)
        if length > self._limits.head_bytes + 256 + _PRIORITY_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "The frame is too large.")
        end = at + length
        if end > len(data):
            return None
        try:
            self._act(kind, flags, number, bytes(data[at:end]))
        except StreamFault as fault:
            self._frames.on_fault(fault)
        return end

    def _act(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._begin_block(flags, number, payload)
        elif kind == CONTINUATION:
            self._continue_block(flags, payload)
        elif kind == WINDOW_UPDATE:
            self._frames.on_window_update(number, read_long(payload) & STREAM_MASK)
        elif kind == PING:
            if not flags & ACK:
                self._frames.on_ping(payload)
        elif kind == SETTINGS:
            self._settings_seen = True
            if not flags & ACK:
                self._frames.on_settings(payload)
        elif kind == RST_STREAM:
            self._frames.on_reset(number)
        else:  # PRIORITY, GOAWAY: nothing depends on them here
            self._frames.spend()
            if kind == PRIORITY and read_long(payload) & STREAM_MASK == number:
                raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "A stream is its own parent.")

    def _begin_data(
        self, data: memoryview, at: int, length: int, flags: int, number: int
    ) -> int | None:
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA needs a stream.")
        padding = 0
        body_bytes = length
        if flags & PADDED:
            if length and at == len(data):
                return None
            padding = data[at] if length else 0
            body_bytes = length - 1 - padding
            if body_bytes < 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "The padding is too large.")
            at += 1
        ended = bool(flags & END_STREAM)
        try:
            wanted = self._frames.on_data_begun(number, length, body_bytes, ended=ended)
        except StreamFault as fault:
            self._frames.on_fault(fault)
            wanted = False
        if not wanted:
            self._skip_bytes = body_bytes + padding
            return at
        self._data_stream = number
        self._data_left = body_bytes
        self._data_ends = ended
        self._padding_left = padding
        if not body_bytes:
            self._skip_bytes = padding
            if ended:
                self._frames.on_data(number, data[at:at], ended=True)
        return at

    def _read_part(self, data: memoryview, at: int) -> int:
        """Read the next part of a DATA frame, or skip bytes of one that has no use."""
        if self._skip_bytes:
            count = min(self._skip_bytes, len(data) - at)
            self._skip_bytes -= count
            return at + count
        part = data[at : at + self._data_left]
        self._data_left -= len(part)
        ended = self._data_ends and not self._data_left
        if not self._data_left:
            self._skip_bytes = self._padding_left
        self._frames.on_data(self._data_stream, part, ended=ended)
        return at + len(part)

    def _begin_block(self, flags: int, number: int, payload: bytes) -> None:
        if flags & (PADDED | HAS_PRIORITY):
            payload = self._without_extras(flags, number, payload)
        else:
            self._block_own_parent = False
        if flags & END_HEADERS:
            self._frames.on_headers(
                number,
                payload,
                ended=bool(flags & END_STREAM),
                own_parent=self._block_own_parent,
            )
            return
        self._block = bytearray(payload)
        self._block_stream = number
        self._block_flags = flags
        self._block_frames = 0

    def _without_extras(self, flags: int, number: int, payload: bytes) -> bytes:
        """The header block of a HEADERS frame with padding or a priority."""
        begin, padding = 0, 0
        if flags & PADDED:
            padding = payload[0] if payload else len(payload) + 1
            begin = 1
        self._block_own_parent = False
        if flags & HAS_PRIORITY:
            if len(payload) < begin + _PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "The frame is too small.")
            self._block_own_parent = read_long(payload[begin:]) & STREAM_MASK == number
            begin += _PRIORITY_BYTES
        end = len(payload) - padding
        if end < begin:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "The padding is too large.")
        return payload[begin:end]

    def _continue_block(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION continues nothing.")
        self._block += payload
        self._block_frames += 1
        too_many = self._block_frames > CONTINUATIONS
        if too_many or len(self._block) > self._limits.head_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "The header block is too large.")
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._frames.on_headers(
                self._block_stream,
                block,
                ended=bool(self._block_flags & END_STREAM),
                own_parent=self._block_own_parent,
            )


def _check_form(kind: int, flags: int, number: int, length: int) -> None:
    """Raises ConnectionFault if a frame of this kind cannot have this stream and size."""
    if kind in _OF_CONNECTION and number:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "The frame needs stream 0.")
    if kind in _OF_STREAM and not number:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "The frame needs a stream.")
    if kind == PUSH_PROMISE:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A client may not push.")
    if kind in _SIZES and length != _SIZES[kind]:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "The frame has a wrong size.")
    if kind == SETTINGS:
        if length % _SETTING_BYTES or (flags & ACK and length):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "The frame has a wrong size.")
        if length > SETTINGS_IN_FRAME * _SETTING_BYTES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "Too many settings.")
    if kind == GOAWAY and length < _GOAWAY_BYTES:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "The frame has a wrong size.")
