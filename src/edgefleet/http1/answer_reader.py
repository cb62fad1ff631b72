"""Parses HTTP/1.1 answers of known length, or in chunks. No I/O."""

from collections.abc import Mapping
from typing import Final

from edgefleet.base.errors import NetworkError
from edgefleet.http1.limits import ANSWER_BODY_BYTES, ANSWER_HEAD_BYTES, CHUNK_LINE_BYTES

_END: Final = b"\r\n\r\n"
_BODILESS: Final = (204, 304)


class AnswerReader:
    """Reads one answer after another from the bytes of one connection.

    After ``feed`` has returned True, ``status``, ``headers`` (by lower-case name), ``body`` and
    ``closes`` are those of the answer. A body has at most ``limit_bytes``. ``retry_after`` says
    whether it has that header.
    """

    def __init__(self, limit_bytes: int = ANSWER_BODY_BYTES) -> None:
        self.status = 0
        self.headers: Mapping[bytes, bytes] = {}
        self.body = b""
        self.closes = False
        self._limit_bytes = limit_bytes
        self.retry_after = False
        self._data = bytearray()
        self._head_end = 0  # 0 while the head is not whole
        self._body_end = 0
        self._chunked = False
        self._chunks = bytearray()

    @property
    def begun(self) -> bool:
        """Whether bytes of an answer have come that is not whole yet."""
        return bool(self._data or self._head_end)

    def feed(self, data: bytes | memoryview) -> bool:
        """Add received bytes. True if the answer is whole now.

        Raises NetworkError ``answer_malformed``, also for bytes that belong to no request.
        """
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
        self.body = bytes(memoryview(self._data)[self._head_end :])
        self._data, self._head_end = bytearray(), 0
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
                break
            del self._data[: self._head_end]
            self._head_end = 0
        if self._chunked:
            del self._data[: self._head_end]
        return True

    def _parse_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise _malformed("it does not begin with a status line")
        self.status = int(words[1])
        self.closes = words[0] == b"HTTP/1.0"
        self._chunked = self.retry_after = False
        headers: dict[bytes, bytes] = {}
        length: int | None = None
        for line in lines:
            name, _, value = line.partition(b":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = value
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
        self.headers = headers
        if length is None and not self._chunked and self.status >= 200:
            if self.status not in _BODILESS:
                raise _malformed("it has no length")
            length = 0
        if (length or 0) > self._limit_bytes:
            raise _malformed(f"its body has {length} bytes")
        self._body_end = len(head) + len(_END) + (length or 0)

    def _read_chunks(self) -> bool:
        """Move whole chunks out of the data. Whether the last one is here."""
        data = self._data
        at = 0
        while (end := data.find(b"\r\n", at, at + CHUNK_LINE_BYTES)) >= 0:
            size = _chunk_size(bytes(data[at:end]))
            if size + len(self._chunks) > self._limit_bytes:
                raise _malformed("its body is too large")
            begin = end + 2
            if len(data) < begin + size + 2:
                break
            at = begin + size + 2
            if size == 0:
                if len(data) > at:
                    raise _malformed("bytes follow its last chunk")
                self.body = bytes(self._chunks)
                self._data, self._chunks, self._head_end = bytearray(), bytearray(), 0
                return True
            self._chunks += data[begin : begin + size]
        else:
            if len(data) - at >= CHUNK_LINE_BYTES:
                raise _malformed("the size of a chunk is no number")
        del data[:at]
        return False


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        size = int(digits, 16) if digits.isalnum() else -1
    except ValueError:
        size = -1
    if size < 0:
        raise _malformed("the size of a chunk is no number")
    return size


def _malformed(fault: str) -> NetworkError:
    return NetworkError("answer_malformed", f"An answer is not HTTP/1.1: {fault}.")
