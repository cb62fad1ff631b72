"""Errors of the operator plane as HTTP answers: every error becomes a Problem."""

import math
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edgefleet.base.errors import EdgefleetError, InternalError, OperatorError
from edgefleet.hub.limits import OVERLOAD_RETRY_S
from edgefleet.hub.store.faults import store_error
from edgefleet.protocol.wire import encode, problem


def problem_answer(error: EdgefleetError, headers: Mapping[str, str] | None = None) -> Response:
    """``error`` as an HTTP answer with a Problem as its body."""
    more = dict(headers or {})
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        more["retry-after"] = str(OVERLOAD_RETRY_S)
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        more["retry-after"] = str(math.ceil(error.retry_after_s))
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


async def _store(_request: Request, error: Exception) -> Response:
    """An error of SQLite while a row is read."""
    typed = store_error(error)
    if not isinstance(typed, EdgefleetError):
        raise error
    return problem_answer(typed)


async def _routing(request: Request, error: Exception) -> Response:
    """Errors of the router: unknown paths and methods."""
    if not isinstance(error, HTTPException):
        raise error
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            refusal = OperatorError("not_found", f"There is no endpoint {request.url.path}.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            refusal = OperatorError(
                "method_not_allowed", f"{request.url.path} does not support {request.method}."
            )
        case _:
            refusal = OperatorError("bad_request", f"{error.detail}.")
    return problem_answer(refusal, error.headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    """The client has disconnected, so this answer is never read."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _defect(_request: Request, _error: Exception) -> Response:
    """An unexpected error. The server logs the traceback; the answer does not contain it."""
    return problem_answer(
        InternalError("internal", "The hub failed; see the traceback in its log.")
    )


HANDLERS: Final = {
    EdgefleetError: _typed,
    sqlite3.Error: _store,
    HTTPException: _routing,
    ClientDisconnect: _gone,
    Exception: _defect,
}
