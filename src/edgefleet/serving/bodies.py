"""Compressed bodies: gzip and deflate, of requests and of replies (RFC 9110, section 8.4)."""

import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from edgefleet.base.errors import DeviceError, OperatorError, Overloaded
from edgefleet.http1.limits import LARGE_BODY_BYTES
from edgefleet.http1.message import Reply, Request
from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.limits import COMPRESSED_REPLY_BYTES, UNCOMPRESSED_REPLY_BYTES

ENCODING: Final = b"content-encoding"
_ANY_HEADER: Final = 32 + zlib.MAX_WBITS  # of gzip or of zlib
_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 1  # a device has little CPU time, and a close network
_CODINGS: Final = ("gzip", "x-gzip", "deflate")


def plain_body(request: Request, bodies: BodyMemory) -> bytes | bytearray | memoryview:
    """The body without its compression, at most ``bodies.most_bytes``.

    Raises OperatorError ``bad_request`` for another coding and for a body that is damaged, and
    DeviceError ``body_too_large`` or ``overloaded`` if it does not fit.
    """
    encoding = request.headers.get(ENCODING)
    if encoding is None:
        return request.raw_body
    coding = encoding.decode("latin-1").strip().lower()
    if coding in ("", "identity"):
        return request.raw_body
    if coding not in _CODINGS:
        raise OperatorError(
            "bad_request",
            "A body may be compressed once, with gzip or deflate.",
            field="Content-Encoding",
        )
    plain = _inflated(request.view, bodies.most_bytes, raw=coding == "deflate")
    if len(plain) < LARGE_BODY_BYTES:
        return plain
    # Requests that wait for a slow model are bounded: all such bodies have one memory.
    room = bodies.room(len(plain), request.headers)
    if room is None:
        raise Overloaded("memory", "The server has no memory left for request bodies.")
    room[:] = plain
    return room


def _inflated(data: memoryview, most_bytes: int, *, raw: bool) -> bytes:
    """The plain bytes, at most so many. ``raw``: deflate without a zlib header is accepted, too."""
    pieces: list[bytes] = []
    size_bytes = 0
    window = _ANY_HEADER
    if raw and (len(data) < 2 or data[0] & 15 != 8 or (data[0] << 8 | data[1]) % 31):
        window = -zlib.MAX_WBITS
    rest: bytes | memoryview = data
    while rest:  # gzip may have several members
        inflater = zlib.decompressobj(window)
        try:
            piece = inflater.decompress(rest, most_bytes + 1 - size_bytes)
        except zlib.error as error:
            raise _damaged(str(error)) from error
        size_bytes += len(piece)
        if size_bytes > most_bytes:
            raise DeviceError(
                "body_too_large",
                f"The body is larger than {most_bytes} bytes without its compression.",
                field="body",
            )
        if not inflater.eof:
            raise _damaged("it ends early")
        pieces.append(piece)
        rest = inflater.unused_data
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _damaged(why: str) -> OperatorError:
    return OperatorError(
        "bad_request", f"The compressed body cannot be read: {why}.", field="Content-Encoding"
    )


def compressed(reply: Reply, headers: Mapping[bytes, bytes]) -> Reply:
    """The reply as the client accepts it. Small and very large ones stay as they are."""
    size_bytes = len(reply.body)
    accepted = headers.get(b"accept-encoding")
    if accepted is None or not COMPRESSED_REPLY_BYTES <= size_bytes <= UNCOMPRESSED_REPLY_BYTES:
        return reply
    coding = _preferred(accepted.decode("latin-1"))
    if coding is None:
        return reply
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if coding == "gzip" else 15)
    return msgspec.structs.replace(
        reply,
        body=deflater.compress(reply.body) + deflater.flush(),
        headers=(
            *reply.headers,
            ("Content-Encoding", coding),
            ("Vary", "Accept-Encoding"),
        ),
    )


def _preferred(accepted: str) -> str | None:
    """``gzip`` or ``deflate``, the one with the larger weight. None if the client wants neither."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        coding, _, parameter = part.partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            weight = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            weight = 0.0
        weights[coding.strip()] = weight
    other = weights.get("*", 0.0)
    gzip = weights.get("gzip", weights.get("x-gzip", other))
    deflate = weights.get("deflate", other)
    if gzip <= 0 and deflate <= 0:
        return None
    return "gzip" if gzip >= deflate else "deflate"
