"""The server's side of one HTTP/2 connection, without a socket and without a clock.

``receive`` takes bytes and returns events; ``pieces`` returns the bytes to send. The caller sets
``now``, in seconds, before ``receive`` and ``sweep``.

Source: RFC 9113. Extended CONNECT, server push and priorities are not offered.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

from edgefleet.http2.frame_reader import FrameReader
from edgefleet.http2.frames import (
    FIRST_WINDOW,
    LARGEST_FRAME_BYTES,
    LARGEST_WINDOW,
    SMALLEST_FRAME_BYTES,
    ConnectionFault,
    ErrorCode,
    Setting,
    StreamFault,
    goaway_frame,
    ping_ack_frame,
    read_settings,
    rst_stream_frame,
    settings_frame,
    window_update_frame,
)
from edgefleet.http2.header_block import HeaderDecoder, Headers
from edgefleet.http2.limits import RESETS_REMEMBERED, ConnectionLimits
from edgefleet.http2.outbox import Outbox
from edgefleet.http2.stream import (
    NO_LENGTH,
    BodyReceived,
    Event,
    RequestBegun,
    Stream,
    StreamReset,
)

_SETTINGS_ACK: Final = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"
_EMPTY: Final = memoryview(b"")


class ServerConnection:
    """The state of one connection.

    A call that names a stream that has ended does nothing: a reply may come after a reset.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.now = 0.0
        self.closing = False  # GOAWAY with an error was sent: nothing is read any more
        self.draining = False  # GOAWAY was sent: new streams are not answered
        self.streams: dict[int, Stream] = {}
        self.outbox = Outbox(self._finished)
        self.reader = FrameReader(self, limits)
        self._limits = limits
        self._decoder = HeaderDecoder(limits.head_bytes)
        self._events: list[Event] = []
        self._last = 0  # the highest stream that the client has opened
        self._receive_window = limits.window_bytes
        self._taken_bytes = 0  # of all bodies, not yet in a WINDOW_UPDATE
        self._first_window = FIRST_WINDOW  # of replies on new streams
        self._running: set[int] = set()  # reset streams whose handlers have not ended
        self._dropped: deque[int] = deque(maxlen=RESETS_REMEMBERED)
        self._resets = limits.resets_burst
        self._control = limits.control_burst
        self._errors = limits.errors
        self._progress = 0
        self.outbox.put(
            settings_frame(
                (
                    (Setting.MAX_CONCURRENT_STREAMS, limits.concurrent_streams),
                    (Setting.INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                    (Setting.MAX_FRAME_SIZE, limits.frame_bytes),
                    (Setting.MAX_HEADER_LIST_SIZE, limits.head_bytes),
                )
            )
        )
        self.outbox.put(window_update_frame(0, limits.window_bytes - FIRST_WINDOW))

    # Called by the shell.

    def receive(self, data: memoryview) -> list[Event]:
        """Read bytes of the client. The events' data is valid until the next call."""
        if not self.closing:
            try:
                self.reader.feed(data)
            except ConnectionFault as fault:
                self.fail(fault.code, fault.text)
        events, self._events = self._events, []
        return events

    def sweep(self, elapsed_s: float) -> list[Event]:
        """Refill the budgets, and reset the streams of a client that is too slow."""
        limits = self._limits
        self._resets = min(
            limits.resets_burst, self._resets + int(limits.resets_per_s * elapsed_s) + 1
        )
        self._control = min(
            limits.control_burst, self._control + int(limits.control_per_s * elapsed_s) + 1
        )
        for stream in tuple(self.streams.values()):
            sends = stream.remote_open and stream.hurried
            if (sends and self.now - stream.received_at > limits.body_s) or (
                stream.unsent and self.now - stream.sent_at > limits.write_s
            ):
                self._end_by_fault(stream.id, ErrorCode.CANCEL)
        events, self._events = self._events, []
        return events

    def pieces(self) -> list[bytes | memoryview]:
        """The next bytes to send. Empty if nothing may be sent now."""
        return self.outbox.pieces(self._limits.write_buffer_bytes, self.now)

    def shut_down(self) -> None:
        """Answer the streams that are open, and no others."""
        if not self.draining and not self.closing:
            self.draining = True
            self.outbox.put(goaway_frame(self._last, ErrorCode.NO_ERROR))

    def fail(self, code: ErrorCode, text: str) -> None:
        """End the connection: the client broke a rule or a limit."""
        if not self.closing:
            self.closing = True
            self.outbox.put(goaway_frame(self._last, code, text))

    # Called by handlers.

    def respond(self, number: int, block: bytes, *, ends: bool = False) -> None:
        """Send the head of the reply."""
        stream = self.streams.get(number)
        if stream is not None and stream.local_open:
            self.outbox.head(stream, block, ends=ends)

    def reply(self, number: int, block: bytes, data: bytes, trailers: bytes) -> None:
        """Send a whole reply."""
        stream = self.streams.get(number)
        if stream is not None and stream.local_open:
            self.outbox.reply(stream, block, data, trailers)

    def send(
        self, number: int, data: bytes | memoryview, *, ends: bool, trailers: bytes | None = None
    ) -> None:
        """Send a part of the reply's body after its head. ``trailers`` follow the last part."""
        stream = self.streams.get(number)
        if stream is not None and stream.local_open and not stream.ends:
            if not stream.unsent:
                stream.sent_at = self.now
            self.outbox.data(stream, memoryview(data), ends=ends, trailers=trailers)

    def consume(self, number: int, count: int) -> None:
        """The handler has taken ``count`` bytes of the body: the client may send as many again."""
        stream = self.streams.get(number)
        if stream is None:
            return  # its bytes were returned when it ended
        self._return_bytes(count)
        stream.untaken_bytes -= count
        stream.taken_bytes += count
        if stream.remote_open and stream.taken_bytes * 2 >= self._limits.stream_window_bytes:
            stream.receive_window += stream.taken_bytes
            self.outbox.put(window_update_frame(number, stream.taken_bytes))
            stream.taken_bytes = 0

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream without a reply, or in the middle of it. No event follows."""
        stream = self.streams.pop(number, None)
        if stream is not None:
            self._forget(stream)
            self._dropped.append(number)
            self.outbox.put(rst_stream_frame(number, code))

    def release(self, number: int) -> None:
        """The handler of a stream that was reset has ended."""
        self._running.discard(number)

    # Called by the reader, with whole frames and parts of DATA frames.

    def on_headers(self, number: int, block: bytes, *, ended: bool, own_parent: bool) -> None:
        """A header block: a new request, or the trailers of one."""
        stream = self.streams.get(number)
        trailers = stream is not None
        headers = self._decoder.decode(block, trailers=trailers)
        if number % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A client has odd streams only.")
        if number <= self._last:
            self._on_trailers(number, stream, headers, ended=ended)
            return
        if self.draining:
            return
        self._last = number
        if headers is None or own_parent:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "The request is malformed.")
        full = len(self.streams) + len(self._running) >= self._limits.concurrent_streams
        if full or self.outbox.unsent_bytes > self._limits.unsent_bytes:
            raise StreamFault(number, ErrorCode.REFUSED_STREAM, "Too many streams.")
        length = _length(headers)
        if length is None or (ended and length > 0):
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "content-length is wrong.")
        self._control = min(
            self._limits.control_burst, self._control + self._limits.control_per_request
        )
        windows = (self._limits.stream_window_bytes, self._first_window)
        stream = self.streams[number] = Stream(number, headers, windows, self.now, length)
        stream.remote_open = not ended
        self._events.append(RequestBegun(number, headers, ended))

    def _on_trailers(
        self, number: int, stream: Stream | None, headers: Headers | None, *, ended: bool
    ) -> None:
        if stream is None:
            if number in self._dropped:
                return
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"Stream {number} is closed.")
        if not stream.remote_open:
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, "The request has ended.")
        if not ended or headers is None or stream.length_left > 0:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "The trailers are malformed.")
        stream.remote_open = False
        self._events.append(BodyReceived(number, _EMPTY, ended=True))

    def on_data_begun(self, number: int, frame_bytes: int, body_bytes: int, *, ended: bool) -> bool:
        """The head of a DATA frame. Returns whether a handler gets its body."""
        self._receive_window -= frame_bytes
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "The connection's window is full.")
        stream = self.streams.get(number)
        if stream is None:
            self._return_bytes(frame_bytes)
            self._check_known(number)
            if number not in self._dropped and number <= self._last:
                raise StreamFault(number, ErrorCode.STREAM_CLOSED, "The stream is closed.")
            return False
        stream.untaken_bytes += frame_bytes
        if not stream.remote_open:
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, "The request has ended.")
        stream.receive_window -= frame_bytes
        if stream.receive_window < 0:
            raise StreamFault(number, ErrorCode.FLOW_CONTROL_ERROR, "The stream's window is full.")
        if stream.length_left != NO_LENGTH:
            stream.length_left -= body_bytes
            if stream.length_left < 0 or (ended and stream.length_left):
                raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "content-length is wrong.")
        if frame_bytes != body_bytes:
            self.consume(number, frame_bytes - body_bytes)
        if not body_bytes and not ended:
            self.spend()
        return True

    def on_data(self, number: int, data: memoryview, *, ended: bool) -> None:
        """A part of the body. ``ended``: the last one."""
        stream = self.streams.get(number)
        if stream is None:
            return
        stream.received_at = self.now
        if ended:
            stream.remote_open = False
        if ended or len(data):
            self._events.append(BodyReceived(number, data, ended))

    def on_reset(self, number: int) -> None:
        self._check_known(number)
        self._resets -= 1
        if self._resets < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "Too many streams were reset.")
        stream = self.streams.pop(number, None)
        if stream is not None:
            self._forget(stream)
            self._running.add(number)
            self._events.append(StreamReset(number, ErrorCode.CANCEL))

    def on_settings(self, payload: bytes) -> None:
        self.spend()
        for name, value in read_settings(payload):
            if name == Setting.ENABLE_PUSH and value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1.")
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._set_first_window(value)
            elif name == Setting.MAX_FRAME_SIZE:
                if not SMALLEST_FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
                    raise ConnectionFault(
                        ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range."
                    )
                self.outbox.frame_bytes = value
        self.outbox.put(_SETTINGS_ACK)

    def on_ping(self, payload: bytes) -> None:
        self.spend()
        self.outbox.put(ping_ack_frame(payload))

    def on_window_update(self, number: int, count: int) -> None:
        self.spend()
        if number == 0:
            if count == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0.")
            self.outbox.window += count
            if self.outbox.window > LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "The window is too large.")
            return
        self._check_known(number)
        stream = self.streams.get(number)
        if stream is None:
            return
        if count == 0:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0.")
        stream.send_window += count
        if stream.send_window > LARGEST_WINDOW:
            raise StreamFault(number, ErrorCode.FLOW_CONTROL_ERROR, "The window is too large.")
        self.outbox.enqueue(stream)

    def on_fault(self, fault: StreamFault) -> None:
        """Reset the stream of ``fault``."""
        self._errors -= 1
        if self._errors < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "Too many faults.")
        if fault.stream in self.streams:
            self._end_by_fault(fault.stream, fault.code)
        else:
            self._dropped.append(fault.stream)
            self.outbox.put(rst_stream_frame(fault.stream, fault.code))

    def spend(self) -> None:
        """Count a frame that carries no request. Replies that were sent allow for more."""
        self._control += 2 * (self.outbox.progress - self._progress) - 1
        self._progress = self.outbox.progress
        if self._control < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "Too many control frames.")

    def _check_known(self, number: int) -> None:
        """Raises ConnectionFault if the client has never opened the stream."""
        if number % 2 == 0 or (number > self._last and not self.draining):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"Stream {number} is idle.")

    def _set_first_window(self, value: int) -> None:
        if value > LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "The window is too large.")
        change, self._first_window = value - self._first_window, value
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "The window is too large.")
            self.outbox.enqueue(stream)

    def _end_by_fault(self, number: int, code: ErrorCode) -> None:
        self.reset(number, code)
        self._running.add(number)
        self._events.append(StreamReset(number, code))

    def _finished(self, stream: Stream) -> None:
        """The reply has ended. A request that has not is not needed any more."""
        stream.local_open = False
        if self.streams.pop(stream.id, None) is None:
            return
        self._forget(stream)
        if stream.remote_open:
            self._dropped.append(stream.id)
            self.outbox.put(rst_stream_frame(stream.id, ErrorCode.NO_ERROR))

    def _forget(self, stream: Stream) -> None:
        self.outbox.drop(stream)
        self._return_bytes(stream.untaken_bytes)
        stream.untaken_bytes = 0

    def _return_bytes(self, count: int) -> None:
        self._taken_bytes += count
        if self._taken_bytes * 2 >= self._limits.window_bytes:
            self._receive_window += self._taken_bytes
            self.outbox.put(window_update_frame(0, self._taken_bytes))
            self._taken_bytes = 0


def _length(headers: Mapping[bytes, bytes]) -> int | None:
    """The announced size of the body in bytes, NO_LENGTH without one. None if it is no size."""
    given = headers.get(b"content-length")
    if given is None:
        return NO_LENGTH
    return int(given) if given.isdigit() and len(given) <= 18 else None
