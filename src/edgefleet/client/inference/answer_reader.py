"""Parses HTTP/1.1 answers of known length, or in chunks. No I/O."""

from typing import Final

from edgefleet.base.errors import NetworkError
from edgefleet.client.inference.limits import ANSWER_BODY_BYTES, ANSWER_HEAD_BYTES

_END: Final = b"\r\n\r\n"
_BODILESS: Final = (204, 304)


class AnswerReader:
    """Reads one answer after another from the bytes of one connection.

    After ``feed`` has returned True, ``status``, ``body`` and ``closes`` are those of the answer.
    ``retry_after`` says whether it has that header.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.closes = False
        self.retry_after = False
        self._data = bytearray()
        self._head_end = 0  # 0 while the head is not whole
        self._body_end = 0
        self._chunked = False

    def feed(self, data: bytes | memoryview) -> bool:
        """Add received bytes. True if the answer is whole now.

        Raises NetworkError ``answer_malformed``, also for bytes that belong to no request.
        """
        if not self._data:
            self._head_end = 0
        self._data += data
        if not self._head_end and not self._read_head():
            return False
        if self._chunked:
            return self._read_chunks()
        have = len(self._data)
        if have < self._body_end:
            return False
        if have > self._body_end:
            raise _malformed("the server sent more bytes than it announced")
        self.body = bytes(self._data[self._head_end :])
        self._data.clear()
        return True

    def _read_head(self) -> bool:
        """Whether the last head of an answer is here. Informational answers are skipped."""
        while True:
            end = self._data.find(_END)
            if end < 0:
                if len(self._data) > ANSWER_HEAD_BYTES:
                    raise _malformed("its head is too large")
                return False
            self._parse_head(bytes(self._data[:end]))
            self._head_end = end + len(_END)
            if self.status >= 200:
                return True
            del self._data[: self._head_end]
            self._head_end = 0

    def _parse_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise _malformed("it does not begin with a status line")
        self.status = int(words[1])
        self.closes = words[0] == b"HTTP/1.0"
        self._chunked = self.retry_after = False
        length: int | None = None
        for line in lines:
            name, _, value = line.partition(b":")
            name, value = name.strip().lower(), value.strip()
            if name == b"content-length":
                if not value.isdigit() or len(value) > 12:
                    raise _malformed("its length is no number")
                length = int(value)
            elif name == b"transfer-encoding":
                self._chunked = value.lower() == b"chunked"
            elif name == b"retry-after":
                self.retry_after = value.isdigit()
            elif name == b"connection":
                self.closes = value.lower() == b"close"
        if length is None and not self._chunked and self.status >= 200:
            if self.status not in _BODILESS:
                raise _malformed("it has no length")
            length = 0
        if (length or 0) > ANSWER_BODY_BYTES:
            raise _malformed(f"its body has {length} bytes")
        self._body_end = len(head) + len(_END) + (length or 0)

    def _read_chunks(self) -> bool:
        pieces: list[bytes] = []
        at = self._head_end
        while True:
            end = self._data.find(b"\r\n", at)
            if end < 0:
                return self._unfinished()
            size_text = bytes(self._data[at:end]).partition(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError as error:
                raise _malformed("the size of a chunk is no number") from error
            if not 0 <= size <= ANSWER_BODY_BYTES:
                raise _malformed("a chunk is too large")
            at = end + 2
            if len(self._data) < at + size + 2:
                return self._unfinished()
            if size == 0:
                self.body = b"".join(pieces)
                self._data.clear()
                return True
            pieces.append(bytes(self._data[at : at + size]))
            at += size + 2

    def _unfinished(self) -> bool:
        if len(self._data) > ANSWER_BODY_BYTES:
            raise _malformed("its body is too large")
        return False


def _malformed(what: str) -> NetworkError:
    return NetworkError("answer_malformed", f"An answer is not HTTP/1.1: {what}.")
