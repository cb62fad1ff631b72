"""One stream: its state, its windows and the part of the reply that waits for the client."""

from collections import deque
from typing import Final

from edgefleet.http2.header_block import Headers

NO_LENGTH: Final = -1


class Stream:
    """A request and its reply. ``Connection`` alone changes it.

    ``hurried``: the client must send a byte of the body within ``body_s``. The handler of a stream
    of messages sets it to False between messages.
    """

    __slots__ = (
        "ends",
        "headers",
        "hurried",
        "id",
        "length_left",
        "local_open",
        "queued",
        "receive_window",
        "received_at",
        "remote_open",
        "send_window",
        "sent_at",
        "taken_bytes",
        "trailers",
        "unsent",
        "unsent_bytes",
        "untaken_bytes",
        "wants_sent",
    )

    def __init__(
        self, number: int, headers: Headers, windows: tuple[int, int], now: float, length: int
    ) -> None:
        self.id = number
        self.headers = headers
        self.receive_window, self.send_window = windows
        self.received_at = now
        self.sent_at = now
        self.hurried = True
        self.remote_open = True  # the client may send more of the body
        self.local_open = True  # the reply has not ended
        self.length_left = length  # of the announced content-length, or NO_LENGTH
        self.untaken_bytes = 0  # of the body, which the handler has not taken
        self.taken_bytes = 0  # not yet in a WINDOW_UPDATE
        self.unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self.ends = False  # the reply ends after ``unsent``
        self.trailers: bytes | None = None  # a header block after ``unsent``
        self.queued = False  # waits for its turn to send
        self.wants_sent = False  # call ``sent`` of the handler once ``unsent`` is empty


class RequestBegun:
    """The head of a request has arrived."""

    __slots__ = ("ended", "headers", "stream")

    def __init__(self, stream: int, headers: Headers, ended: bool) -> None:
        self.stream = stream
        self.headers = headers
        self.ended = ended


class BodyReceived:
    """Bytes of a body, valid until the next call of ``receive``. ``ended``: the last ones."""

    __slots__ = ("data", "ended", "stream")

    def __init__(self, stream: int, data: memoryview, ended: bool) -> None:
        self.stream = stream
        self.data = data
        self.ended = ended


class StreamReset:
    """The stream has ended before its reply: the client, a fault or a limit reset it.

    The stream counts as one of ``concurrent_streams`` until ``Connection.release``.
    """

    __slots__ = ("code", "stream")

    def __init__(self, stream: int, code: int) -> None:
        self.stream = stream
        self.code = code


Event = RequestBegun | BodyReceived | StreamReset
