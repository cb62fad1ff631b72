"""The connections to the fallback: HTTP/1.1, kept alive, with TLS that is verified.

A request is sent in pieces, as fast as the other side reads, and an answer is bounded. No proxy is
used. A redirect is not followed: an answer with such a status is no answer of a model.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet import __version__
from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.http1.answer_reader import AnswerReader
from edgefleet.protocol.fallback import Address
from edgefleet.serving.limits import (
    FALLBACK_ANSWER_BYTES,
    FALLBACK_CONNECT_S,
    FALLBACK_IDLE_S,
    FALLBACK_KEPT,
    FALLBACK_TOKEN_BYTES,
)

_PIECE_BYTES: Final = 64 << 10

Count = Callable[[int], None]
"""Gets the number of bytes of each piece of an answer. It raises an error to read no further."""


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """A whole answer. Header names are lower case."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams = reader, writer
        self.idle_since = time.monotonic()
        self.was_used = False
        self.answer = AnswerReader(FALLBACK_ANSWER_BYTES)

    async def ask(self, head: bytes, body: memoryview, count: Count) -> None:
        """Send a request and read its answer into ``answer``. Raises OSError or NetworkError."""
        reader, writer = self._streams
        writer.write(head)
        for at in range(0, len(body), _PIECE_BYTES):
            writer.write(body[at : at + _PIECE_BYTES])
            await writer.drain()
        while data := await reader.read(_PIECE_BYTES):
            count(len(data))
            if self.answer.feed(data):
                self.was_used = True
                self.idle_since = time.monotonic()
                return
        raise ConnectionResetError("The connection closed before the end of the answer.")

    @property
    def is_reusable(self) -> bool:
        reader, writer = self._streams
        fresh = time.monotonic() - self.idle_since < FALLBACK_IDLE_S
        return fresh and not reader.at_eof() and not writer.is_closing()

    def close(self) -> None:
        self._streams[1].transport.abort()


class Upstream:
    """A client of one endpoint. ``ca_file`` and ``token_file`` are empty without one.

    Both files are read when they are needed: a token may be replaced while the process runs.
    """

    def __init__(self, address: Address, ca_file: str = "", token_file: str = "") -> None:
        self._address = address
        self._ca_file = ca_file
        self._token_file = token_file
        self._token: tuple[tuple[int, int], bytes] | None = None  # with time and size of the file
        self._context: ssl.SSLContext | None = None
        self._idle: list[_Connection] = []

    async def ask(
        self, target: str, headers: Sequence[tuple[str, bytes]], body: memoryview, count: Count
    ) -> UpstreamAnswer:
        """POST ``body`` to ``target``. The caller sets the time limit; a cancellation is safe.

        Raises NetworkError ``unreachable``, ``connection_lost`` or ``answer_malformed``,
        OperatorError ``setting_invalid``, and the error of ``count``.
        """
        head = self._head(target, headers, len(body))
        while True:
            connection = self._kept() or await self._connect()
            again = connection.was_used
            try:
                await connection.ask(head, body, count)
            except OSError as error:
                connection.close()
                if again and not connection.answer.begun:
                    continue  # the server had closed the kept connection meanwhile
                raise self._lost(error) from error
            except BaseException:
                connection.close()
                raise
            answer = connection.answer
            found = UpstreamAnswer(answer.status, answer.headers, answer.body)
            answer.body = b""
            if answer.closes or len(self._idle) >= FALLBACK_KEPT:
                connection.close()
            else:
                self._idle.append(connection)
            return found

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        address = self._address
        context = self._tls() if address.tls else None
        try:
            async with asyncio.timeout(FALLBACK_CONNECT_S):
                streams = await asyncio.open_connection(address.host, address.port, ssl=context)
        except (OSError, UnicodeError) as error:  # TimeoutError, too; UnicodeError: of the name
            text = f"{address.url} cannot be reached ({error or 'no answer in time'})."
            raise NetworkError("unreachable", text) from error
        return _Connection(*streams)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = ssl.create_default_context(cafile=self._ca_file or None)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                raise _unusable("fallback_ca_file", self._ca_file, str(error)) from error
        return self._context

    def _head(self, target: str, headers: Sequence[tuple[str, bytes]], size_bytes: int) -> bytes:
        lines = [
            f"POST {self._address.path}{target} HTTP/1.1".encode(),
            f"host: {self._address.host_header}".encode(),
            f"user-agent: edgefleet/{__version__}".encode(),
            b"content-length: %d" % size_bytes,
            *(name.encode() + b": " + value for name, value in headers),
        ]
        if self._token_file:
            lines.append(b"authorization: Bearer " + self._read_token())
        return b"\r\n".join((*lines, b"", b""))

    def _read_token(self) -> bytes:
        """The token in the file. Read again when the file has changed."""
        path = Path(self._token_file)
        try:
            found = path.stat()
            version = found.st_mtime_ns, found.st_size
            if self._token is not None and self._token[0] == version:
                return self._token[1]
            with path.open("rb") as file:
                token = file.read(FALLBACK_TOKEN_BYTES + 1).strip()
        except (OSError, ValueError) as error:  # ValueError: of a path
            raise _unusable("fallback_token_file", self._token_file, str(error)) from error
        if not 0 < len(token) <= FALLBACK_TOKEN_BYTES or not all(
            33 <= byte <= 126 for byte in token
        ):
            fault = f"it is not one word of at most {FALLBACK_TOKEN_BYTES} ASCII characters"
            raise _unusable("fallback_token_file", self._token_file, fault)
        self._token = version, token
        return token

    def _lost(self, error: OSError) -> NetworkError:
        text = f"The connection to {self._address.url} broke ({error})."
        return NetworkError("connection_lost", text)


def _unusable(field: str, file: str, fault: str) -> OperatorError:
    return OperatorError(
        "setting_invalid", f"{file} cannot be used for the fallback: {fault}.", field=field
    )
