"""Which methods an endpoint has, and the errors for the others."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.http1.message import Reply, Request, retry_headers
from edgefleet.protocol.wire import encode

_FIELD_CHARS: Final = 64  # of a name that a client sent

Endpoint = Callable[[Request], Reply | Awaitable[Reply]]
Endpoints = Mapping[str, Endpoint]
"""The methods of one path. GET answers HEAD, too. Without methods there is no such path."""


class MethodNotAllowed(OperatorError):  # noqa: N818 - the name of the status
    """The path has other methods, see ``allow``."""

    def __init__(self, method: str, allow: tuple[str, ...]) -> None:
        super().__init__(
            "method_not_allowed",
            f"This endpoint accepts {' and '.join(allow)}, not {method}.",
            hint="Use a method that the header Allow names.",
        )
        self.allow = allow


def methods_of(endpoints: Endpoints) -> tuple[str, ...]:
    """The methods of a path, for the header ``Allow``."""
    return (*endpoints, "HEAD") if "GET" in endpoints else tuple(endpoints)


def endpoint_of(method: str, path: str, endpoints: Endpoints) -> Endpoint:
    """The endpoint for a method. Raises OperatorError ``not_found`` or MethodNotAllowed."""
    if not endpoints:
        raise OperatorError(
            "not_found",
            f"There is no endpoint {path}.",
            hint="See docs/inference-protocols.md for the endpoints.",
        )
    endpoint = endpoints.get("GET" if method == "HEAD" else method)
    if endpoint is None:
        raise MethodNotAllowed(method, methods_of(endpoints))
    return endpoint


def json_reply(value: object) -> Reply:
    """A reply with the value as JSON."""
    return Reply(200, encode(value))


def render_error(error: EdgefleetError, note: str = "") -> Reply:
    """The error object of both protocols, with code, reason, hint and field of edgefleet.

    ``note`` is a sentence that is added to the hint.

    Clients of both protocols show ``error`` alone, so it begins with the name of the tensor or
    parameter that is wrong.
    """
    message = f"{error.field[:_FIELD_CHARS]}: {error.message}" if error.field else error.message
    hint = f"{error.hint} {note}".rstrip()
    body = {"error": message, "code": error.code, "hint": hint, "field": error.field}
    if error.reason:
        body["reason"] = error.reason
    headers = retry_headers(error)
    if isinstance(error, MethodNotAllowed):
        headers = (*headers, ("Allow", ", ".join(error.allow)))
    return Reply(error.status, encode(body), headers=headers)
