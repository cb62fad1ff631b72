"""The heads of recent requests, parsed.

A client sends the same head again and again. Its meaning depends on its bytes alone, so a head that
the parser accepted once needs no second parse.
"""

from typing import Final

import msgspec

from edgefleet.http1.message import Request

_HEADS: Final = 64
_HEAD_BYTES: Final = 1_024  # a longer head is parsed each time
_END: Final = b"\r\n\r\n"
_NOT_KEPT: Final = (b"transfer-encoding", b"upgrade", b"expect")


class Head(msgspec.Struct, frozen=True, gc=False):
    """A parsed head. The connection is kept alive after its request. See ``message.Request``."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body_bytes: int


class KnownHeads:
    """Parsed heads by their bytes: the last ``_HEADS`` new ones of a listener."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def find(self, data: memoryview) -> tuple[bytes, Head | None]:
        """The head at the start of ``data``, which is the start of a request, and its meaning.

        Empty if the head is incomplete or too long. None if it must be parsed.
        """
        start = bytes(data[:_HEAD_BYTES])
        text = start[: start.find(_END) + len(_END)]
        if len(text) < len(_END) or not 65 <= text[0] <= 90:
            return b"", None  # the parser skips line breaks before a request
        return text, self._known.get(text)

    def whole_request(self, data: bytes, peer: str) -> Request | None:
        """The request of ``peer`` if ``data`` is a known head and its body, and no more."""
        at = data.find(_END) + len(_END)
        head = self._known.get(data[:at])
        if head is None or len(data) != at + head.body_bytes:
            return None
        return Request(head.method, head.path, head.query, head.headers, data[at:], peer)

    def add(self, text: bytes, head: Head) -> None:
        """Remember ``head``, unless its request is not framed by its size alone."""
        if any(name in head.headers for name in _NOT_KEPT):
            return
        if len(self._known) == _HEADS:
            del self._known[next(iter(self._known))]
        self._known[text] = head
