"""An artifact as an HTTP answer: the whole or one range, with the digest as its ETag.

RFC 9110, sections 13 and 14. A request for several ranges, or for a malformed one, gets the whole
artifact, as the RFC allows.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edgefleet.base.errors import DeviceError
from edgefleet.hub.limits import COPY_BYTES
from edgefleet.hub.problems import problem_answer

_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_BINARY: Final = "application/octet-stream"


def artifact_answer(request: Request, digest: str, path: Path) -> Response:
    """Answer a GET or HEAD for the artifact at ``path``."""
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
    return StreamingResponse(
        _pieces(path, start, stop), status_code=status, headers=headers, media_type=_BINARY
    )


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


async def _pieces(path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(_open_at, path, start)
    try:
        left = stop - start
        while left:
            piece = await asyncio.to_thread(file.read, min(left, COPY_BYTES))
            if not piece:
                raise ConnectionAbortedError(
                    f"{path} is {left} bytes shorter than at the start of the download"
                )
            left -= len(piece)
            yield piece
    finally:
        file.close()


def _open_at(path: Path, start: int) -> BinaryIO:
    file = path.open("rb")
    file.seek(start)
    return file
