"""Every refusal of the operator plane is a Problem, whatever raised it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edgefleet.base.errors import EdgefleetError, InternalError, OperatorError
from edgefleet.hub.limits import OVERLOAD_RETRY_S
from edgefleet.protocol.wire import encode, problem


def problem_answer(error: EdgefleetError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that carries ``error``."""
    more = dict(headers or {})
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        more["retry-after"] = str(OVERLOAD_RETRY_S)
    if error.status == HTTPStatus.UNAUTHORIZED:
        more["www-authenticate"] = "Bearer"
    return Response(
        encode(problem(error)),
        status_code=error.status,
        headers=more,
        media_type="application/json",
    )


async def _typed(_request: Request, error: Exception) -> Response:
    if not isinstance(error, EdgefleetError):
        raise error
    return problem_answer(error)


async def _routing(request: Request, error: Exception) -> Response:
    """What the router itself refuses: unknown paths and methods."""
    if not isinstance(error, HTTPException):
        raise error
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            said = OperatorError("not_found", f"There is nothing at {request.url.path}.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            said = OperatorError(
                "method_not_allowed", f"{request.method} does nothing at {request.url.path}."
            )
        case _:
            said = OperatorError("bad_request", f"{error.detail}.")
    return problem_answer(said, error.headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    """Whoever asked has hung up: nobody reads this."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _defect(_request: Request, _error: Exception) -> Response:
    """Our own defect. The server prints the traceback once; the caller learns nothing of it."""
    return problem_answer(InternalError("internal", "The hub failed; its log says how."))


HANDLERS: Final = {
    EdgefleetError: _typed,
    HTTPException: _routing,
    ClientDisconnect: _gone,
    Exception: _defect,
}
