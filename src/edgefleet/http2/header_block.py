"""Header blocks: decoding and checks of requests, encoding of replies.

A reply is encoded without a dynamic table and without Huffman codes: its bytes are the same on each
connection, so they are made once. Requests are decoded by ``hpack``. A block of indexed fields
alone does not change the decoder's table, so its result is remembered until the table changes:
a client that repeats its requests sends such blocks.

Source: RFC 7541; RFC 9113 sections 8.2 and 8.3.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from hpack import Decoder, HPACKError, OversizedHeaderListError

from edgefleet.http2.frames import ConnectionFault, ErrorCode
from edgefleet.http2.limits import BLOCKS_REMEMBERED

Headers = Mapping[bytes, bytes]

NO_TABLE: Final = (
    b"\x20"  # "the table has no room": valid at the start of a connection's first block
)
_LITERAL: Final = b"\x00"  # without indexing, with a literal name
_INDEXED: Final = 0x80
_LONG_INDEX: Final = 0xFF
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_NEEDED: Final = frozenset({b":method", b":scheme", b":path"})
_OF_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])")


class HeaderDecoder:
    """Decodes the header blocks of one connection."""

    def __init__(self, list_bytes: int) -> None:
        self._decoder = Decoder(list_bytes)
        self._known: dict[bytes, Headers | None] = {}

    def decode(self, block: bytes, *, trailers: bool = False) -> Headers | None:
        """The fields of a request, or of its trailers, by name. None if they are malformed.

        The values of a repeated field are joined by a comma, of ``cookie`` by a semicolon. Raises
        ConnectionFault if the block cannot be decoded or is too large.
        """
        repeats = bool(block) and min(block) > _INDEXED and _LONG_INDEX not in block
        if repeats and not trailers:
            try:
                return self._known[block]
            except KeyError:
                pass
        try:
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, "The header list is too large."
            ) from error
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(
                ErrorCode.COMPRESSION_ERROR, "The header block cannot be decoded."
            ) from error
        headers = _checked(((bytes(field[0]), bytes(field[1])) for field in fields), trailers)
        if not repeats:
            self._known.clear()
        elif not trailers and len(self._known) < BLOCKS_REMEMBERED:
            self._known[block] = headers
        return headers


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The fields of a reply as a header block without compression. Names are in lower case."""
    return b"".join(
        b"%s%s%s%s%s" % (_LITERAL, _length(name), name, _length(value), value)
        for name, value in fields
    )


def _length(text: bytes) -> bytes:
    """The length of ``text`` as an integer with a prefix of 7 bits, RFC 7541 section 5.1."""
    rest = len(text) - 127
    if rest < 0:
        return bytes((len(text),))
    encoded = bytearray((127,))
    while rest > 127:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _checked(fields: Iterable[tuple[bytes, bytes]], trailers: bool) -> Headers | None:
    headers: dict[bytes, bytes] = {}
    regular = trailers  # a pseudo-header may not follow
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            return None
        if name[:1] == b":":
            if regular or name not in _PSEUDO or name in headers:
                return None
        else:
            regular = True
            if name in _OF_CONNECTION or (name == b"te" and value != b"trailers"):
                return None
            if name in headers:
                joint = b"; " if name == b"cookie" else b", "
                value = headers[name] + joint + value  # noqa: PLW2901 - one field of several lines
        headers[name] = value
    if not trailers and (not headers.keys() >= _NEEDED or not headers[b":path"]):
        return None
    return headers
