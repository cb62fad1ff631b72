"""The output of a connection: control frames at once, replies within the client's windows.

Streams take turns, so that a large reply does not delay a small one.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from edgefleet.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    HEADERS,
    SMALLEST_FRAME_BYTES,
    frame_head,
)
from edgefleet.http2.header_block import NO_TABLE
from edgefleet.http2.stream import Stream

_TURN_BYTES: Final = 64 << 10  # of one stream, before the next one has its turn


class Outbox:
    """The bytes to send, in order. ``finished`` is called with a stream whose reply has ended."""

    def __init__(self, finished: Callable[[Stream], None], turn_bytes: int = _TURN_BYTES) -> None:
        self.window = FIRST_WINDOW  # of the connection, in bytes
        self.frame_bytes = SMALLEST_FRAME_BYTES  # the largest payload that the client accepts
        self.unsent_bytes = 0  # of all replies, which wait for a window or the socket
        self.progress = 0  # frames with data so far
        self.sent: list[int] = []  # streams whose handlers waited until all bytes were sent
        self._turn_bytes = turn_bytes
        self._finished = finished
        self._ready: deque[Stream] = deque()
        self._pieces: list[bytes | memoryview] = []
        self._prefix = NO_TABLE  # of the first header block

    def put(self, frame: bytes) -> None:
        """Send a control frame."""
        self._pieces.append(frame)

    def head(self, stream: Stream, block: bytes, *, ends: bool) -> None:
        """Send the head of a reply, or its trailers."""
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        flags = END_STREAM if ends else 0
        kind = HEADERS
        size = self.frame_bytes
        while len(block) > size:
            self._pieces.append(frame_head(size, kind, flags, stream.id) + block[:size])
            block, kind, flags = block[size:], CONTINUATION, 0
        self._pieces.append(frame_head(len(block), kind, flags | END_HEADERS, stream.id) + block)
        if ends:
            self._finished(stream)

    def reply(self, stream: Stream, block: bytes, data: bytes, trailers: bytes) -> None:
        """Send a whole reply: head, data and trailers. In one piece, if the windows allow."""
        size = len(data)
        if size > self.frame_bytes or size > self.window or size > stream.send_window:
            self.head(stream, block, ends=False)
            self.data(stream, memoryview(data), ends=True, trailers=trailers)
            return
        if self._prefix:
            block, self._prefix = self._prefix + block, b""
        self.window -= size
        self.progress += 1
        number = stream.id
        self._pieces.append(
            b"%s%s%s%s%s%s"
            % (
                frame_head(len(block), HEADERS, END_HEADERS, number),
                block,
                frame_head(size, DATA, 0, number),
                data,
                frame_head(len(trailers), HEADERS, END_HEADERS | END_STREAM, number),
                trailers,
            )
        )
        self._finished(stream)

    def data(
        self, stream: Stream, data: memoryview, *, ends: bool, trailers: bytes | None = None
    ) -> None:
        """Queue bytes of a reply. ``trailers`` follow the last ones."""
        if len(data):
            stream.unsent.append(data)
            stream.unsent_bytes += len(data)
            self.unsent_bytes += len(data)
        stream.ends = ends
        stream.trailers = trailers
        self.enqueue(stream)

    def enqueue(self, stream: Stream) -> None:
        """Give the stream its turn, if it has something that it may send."""
        if stream.queued or not stream.local_open:
            return
        if (stream.unsent and stream.send_window > 0) or (stream.ends and not stream.unsent):
            stream.queued = True
            self._ready.append(stream)

    def drop(self, stream: Stream) -> None:
        """Forget the unsent part of a reply."""
        self.unsent_bytes -= stream.unsent_bytes
        stream.unsent.clear()
        stream.unsent_bytes = 0
        stream.local_open = False

    def pieces(self, limit_bytes: int, now: float) -> list[bytes | memoryview]:
        """The next bytes to send: all control frames, and replies up to ``limit_bytes``."""
        if self._ready:
            self._run_turns(limit_bytes, now)
        pieces, self._pieces = self._pieces, []
        return pieces

    def _run_turns(self, limit_bytes: int, now: float) -> None:
        ready = self._ready
        for _ in range(len(ready) + limit_bytes // SMALLEST_FRAME_BYTES):
            if not ready or limit_bytes <= 0:
                return
            stream = ready.popleft()
            stream.queued = False
            if not stream.local_open:
                continue
            if stream.unsent:
                if self.window <= 0:
                    stream.queued = True
                    ready.appendleft(stream)
                    return
                limit_bytes -= self._send_turn(stream, now)
            if stream.unsent:
                self.enqueue(stream)
                continue
            if stream.wants_sent:
                stream.wants_sent = False
                self.sent.append(stream.id)
            if stream.ends and stream.local_open:
                self._end(stream)

    def _send_turn(self, stream: Stream, now: float) -> int:
        """Send one frame of the reply. Returns its size in bytes; 0 if the window is closed."""
        piece = stream.unsent[0]
        size = min(len(piece), self._turn_bytes, self.frame_bytes, self.window, stream.send_window)
        if size <= 0:
            return 0
        if size == len(piece):
            stream.unsent.popleft()
        else:
            stream.unsent[0] = piece[size:]
        ends = stream.ends and not stream.unsent and stream.trailers is None
        head = frame_head(size, DATA, END_STREAM if ends else 0, stream.id)
        self._pieces += (head, piece[:size])
        self.window -= size
        stream.send_window -= size
        stream.unsent_bytes -= size
        stream.sent_at = now
        self.unsent_bytes -= size
        self.progress += 1 + size // SMALLEST_FRAME_BYTES
        if ends:
            self._finished(stream)
        return size

    def _end(self, stream: Stream) -> None:
        if stream.trailers is not None:
            self.head(stream, stream.trailers, ends=True)
            return
        self._pieces.append(frame_head(0, DATA, END_STREAM, stream.id))
        self._finished(stream)
