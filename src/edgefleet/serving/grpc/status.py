"""The status of a gRPC call: its codes, their form in trailers, and the code of each error.

Source: github.com/grpc/grpc (doc/PROTOCOL-HTTP2.md, doc/statuscodes.md).
"""

import math
from collections.abc import Mapping
from enum import IntEnum
from http import HTTPStatus
from typing import Final

from edgefleet.base.errors import EdgefleetError
from edgefleet.http2.header_block import encode_fields

MESSAGE_BYTES: Final = 2048  # of a grpc-message; a longer one is cut


class Code(IntEnum):
    """The status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_OF_HTTP: Final[Mapping[int, Code]] = {
    HTTPStatus.BAD_REQUEST: Code.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: Code.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: Code.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: Code.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: Code.UNIMPLEMENTED,
    HTTPStatus.REQUEST_TIMEOUT: Code.DEADLINE_EXCEEDED,
    HTTPStatus.CONFLICT: Code.FAILED_PRECONDITION,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Code.RESOURCE_EXHAUSTED,
    HTTPStatus.UNPROCESSABLE_ENTITY: Code.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: Code.RESOURCE_EXHAUSTED,
    HTTPStatus.NOT_IMPLEMENTED: Code.UNIMPLEMENTED,
    HTTPStatus.SERVICE_UNAVAILABLE: Code.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: Code.DEADLINE_EXCEEDED,
}
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}

OK_TRAILERS: Final = encode_fields([(b"grpc-status", b"0")])


class CallFailed(Exception):  # noqa: N818 - the end of a call, with a status of gRPC
    """A call that ends with a status other than OK.

    ``fault`` is a code of edgefleet, ``reason`` its reason, or empty. ``retry_ms`` is the pause in
    milliseconds before a retry, 0 if a retry fails too.
    """

    def __init__(
        self, code: Code, message: str, *, fault: str = "", reason: str = "", retry_ms: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fault = fault
        self.reason = reason
        self.retry_ms = retry_ms


def failure(error: EdgefleetError) -> CallFailed:
    """The status of a typed error. The message begins with the invalid input, if there is one."""
    code = _OF_HTTP.get(error.status, Code.INTERNAL)
    passes = error.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
    retry_ms = max(1, math.ceil(error.retry_after_s * 1_000)) if passes else 0
    text = error_text(error)
    return CallFailed(code, text, fault=error.code, reason=error.reason, retry_ms=retry_ms)


def error_text(error: EdgefleetError) -> str:
    """The one string that clients show: the invalid input and the message."""
    return f"{error.field}: {error.message}" if error.field else error.message


def trailers(end: CallFailed) -> list[tuple[bytes, bytes]]:
    """The trailers of a call that failed."""
    fields = [(b"grpc-status", b"%d" % end.code), (b"grpc-message", percent_encoded(end.message))]
    if end.fault:
        fields.append((b"edgefleet-code", end.fault.encode()))
    if end.reason:
        fields.append((b"edgefleet-reason", end.reason.encode()))
    if end.retry_ms:
        fields.append((b"grpc-retry-pushback-ms", b"%d" % end.retry_ms))
    return fields


def percent_encoded(message: str) -> bytes:
    """``message`` in UTF-8, with all bytes but printable ASCII as ``%XX``."""
    encoded = message.encode("utf-8", "replace")[:MESSAGE_BYTES]
    encoded = encoded.decode("utf-8", "ignore").encode()  # not in the middle of a character
    if encoded.isascii() and encoded.isalnum():
        return encoded
    return b"".join(bytes((one,)) if one in _PLAIN else b"%%%02X" % one for one in encoded)
