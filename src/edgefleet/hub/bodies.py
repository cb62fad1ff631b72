"""Request bodies of the main listener, read with limits on size and time."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final, TypeVar

from starlette.requests import Request

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.hub.limits import BODY_PAUSE_S, JSON_BODY_BYTES, JSON_BODY_S
from edgefleet.protocol.wire import decode

T = TypeVar("T")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


async def read_json(request: Request, kind: type[T], *, most: int = JSON_BODY_BYTES) -> T:
    """Read ``kind`` from the body. An empty body means ``{}``.

    Raises OperatorError ``bad_request``, DeviceError ``body_too_large`` or ``request_too_slow``.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(JSON_BODY_S):
            async for piece in pieces(request):
                body += piece
                if len(body) > most:
                    raise DeviceError("body_too_large", f"The body is larger than {most} bytes.")
    except TimeoutError as error:
        raise DeviceError(
            "request_too_slow", f"The body was not complete after {JSON_BODY_S:g} s."
        ) from error
    return decode(bytes(body) or b"{}", kind)


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """The pieces of the body. Raises DeviceError ``request_too_slow`` if none arrives in time."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(BODY_PAUSE_S):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise DeviceError(
                "request_too_slow", f"No byte of the body arrived for {BODY_PAUSE_S:g} s."
            ) from error
        yield piece


def announced_bytes(request: Request) -> int | None:
    """The Content-Length in bytes. None if the body is chunked."""
    text = request.headers.get("content-length")
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None


def content_start(request: Request) -> int:
    """Where the body begins in the whole, by its Content-Range. 0 without one.

    Raises OperatorError ``bad_request`` unless the body goes to the end of the whole.
    """
    text = request.headers.get("content-range")
    if text is None:
        return 0
    found = _CONTENT_RANGE.fullmatch(text)
    start, last, size = (int(number) for number in found.groups()) if found else (1, 0, 0)
    if not start <= last == size - 1 or announced_bytes(request) not in (None, size - start):
        raise OperatorError(
            "bad_request",
            f"Content-Range is {text}; `bytes START-LAST/SIZE` up to the end is needed, with as "
            "many bytes in the body.",
            field="content-range",
        )
    return start


def query_number(request: Request, name: str, *, default: int | None, most: int) -> int | None:
    """A whole number from 1 to ``most`` in the query. Raises OperatorError ``bad_request``."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and 1 <= int(text) <= most):
        raise OperatorError(
            "bad_request",
            f"{name} is {text}; a whole number from 1 to {most} is needed.",
            field=name,
        )
    return int(text)
