"""An artifact as an HTTP answer: the whole or one range, with the digest as its ETag.

RFC 9110, sections 13 and 14. A request for several ranges, or for a malformed one, gets the whole
artifact, as the RFC allows.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.hub.exchange import exchange_of
from edgefleet.hub.file_sending import FileSender, can_send, reset
from edgefleet.hub.limits import DOWNLOADS_AT_ONCE, DOWNLOADS_OF_ONE, PIECE_BYTES
from edgefleet.hub.problems import problem_answer

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_BINARY: Final = "application/octet-stream"


class Downloads:
    """Counts the downloads in progress, of all clients and of each, and sends their files.

    ``most`` may be set lower, if the system allows fewer open files.
    """

    def __init__(self) -> None:
        self.sender = FileSender()
        self.most = DOWNLOADS_AT_ONCE
        self._count = 0
        self._of: Counter[str] = Counter()

    def close(self) -> None:
        self.sender.close()

    @contextlib.contextmanager
    def one_more(self, owner: str) -> Generator[None]:
        """A place for a download of ``owner``. Raises DeviceError ``overloaded``."""
        if self._count >= self.most:
            raise DeviceError("overloaded", f"{self.most} downloads are in progress, the limit.")
        if self._of[owner] >= DOWNLOADS_OF_ONE:
            raise DeviceError(
                "overloaded", f"{DOWNLOADS_OF_ONE} downloads of {owner} are in progress, the limit."
            )
        self._of[owner] += 1
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._of[owner] -= 1
            if not self._of[owner]:
                del self._of[owner]


def artifact_answer(
    request: Request, digest: str, path: Path, downloads: Downloads, owner: str
) -> Response:
    """Answer a GET or HEAD of ``owner`` for the artifact at ``path``."""
    size = path.stat().st_size
    etag = f'"{digest}"'
    headers = {
        "etag": etag,
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=31536000, immutable",
    }
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    start, stop, status = 0, size, 200
    if request.headers.get("if-range", etag) == etag:
        try:
            wanted = read_range(request.headers.get("range"), size)
        except DeviceError as error:
            return problem_answer(error, {"content-range": f"bytes */{size}"})
        if wanted is not None:
            start, stop = wanted
            status = 206
            headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["content-length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=_BINARY)
    return FileAnswer(status, headers, FilePart(path, start, stop), downloads, owner)


@dataclass(frozen=True, slots=True)
class FilePart:
    """The bytes of a file from ``start`` to ``stop``."""

    path: Path
    start: int
    stop: int


class FileAnswer(Response):
    """A part of a file as an answer to ``owner``."""

    def __init__(
        self,
        status: int,
        headers: dict[str, str],
        part: FilePart,
        downloads: Downloads,
        owner: str,
    ) -> None:
        super().__init__(status_code=status, headers=headers, media_type=_BINARY)
        self._part = part
        self._downloads = downloads
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._downloads.one_more(self._owner):
                await self._send(scope, send)
        except EdgefleetError as error:
            await problem_answer(error)(scope, receive, send)
        except ConnectionError:
            exchange = exchange_of(scope)
            if exchange is None:
                raise
            reset(exchange.transport)
            while (await receive())["type"] != "http.disconnect":
                pass

    async def _send(self, scope: Scope, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        exchange, part = exchange_of(scope), self._part
        if exchange is not None and can_send(exchange.transport):
            await self._downloads.sender.send(exchange.transport, part.path, part.start, part.stop)
            exchange.sent(part.stop - part.start)
        else:
            async for piece in _pieces(part):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """``(start, stop)`` of the requested range in bytes. None if the whole is to be sent.

    Raises DeviceError ``range_invalid`` if the artifact has no byte of the range.
    """
    found = _RANGE.fullmatch((header or "").replace(" ", ""))
    if found is None or found.group(0) == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise DeviceError(
            "range_invalid", f"{header} lies outside the {size} bytes.", field="range"
        )
    return start, stop


def _matches(header: str | None, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return etag in tags or "*" in tags


async def _pieces(part: FilePart) -> AsyncIterator[bytes]:
    """The bytes of a file, for a connection that ``FileSender`` cannot use."""
    file = await asyncio.to_thread(_open_at, part.path, part.start)
    try:
        left = part.stop - part.start
        while left:
            piece = await asyncio.to_thread(file.read, min(left, PIECE_BYTES))
            if not piece:
                raise ConnectionAbortedError(
                    f"{part.path} is {left} bytes shorter than at the start of the download"
                )
            left -= len(piece)
            yield piece
    finally:
        file.close()


def _open_at(path: Path, start: int) -> BinaryIO:
    file = path.open("rb")
    file.seek(start)
    return file
