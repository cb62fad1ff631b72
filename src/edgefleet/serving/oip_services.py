"""The extensions of Open Inference Protocol v2 that change nothing: trace, logging, shared memory.

Each says that it is off. A request that would switch one on is refused with a sentence, so that a
client learns it at once. So are loads and unloads: models come by rollout.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from edgefleet.base.errors import OperatorError
from edgefleet.http1.message import Reply, Request
from edgefleet.protocol.wire import decode
from edgefleet.serving.routes import Endpoints, json_reply

TRACE: Final[Mapping[str, Any]] = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
LOGGING: Final[Mapping[str, Any]] = {
    "log_file": "",
    "log_info": False,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


class RepositoryIndexRequest(msgspec.Struct, frozen=True):
    """The body of ``POST /v2/repository/index``."""

    ready: bool | None = None


def refuse_load(_: Request) -> Reply:
    """Raises OperatorError ``bad_request``: models come by rollout."""
    raise OperatorError(
        "bad_request",
        "This server neither loads nor unloads a model on request: models come by rollout.",
        hint="Run `edgefleet rollout plan` at the hub.",
    )


def trace_endpoints() -> Endpoints:
    """The endpoints of the trace settings, of the server or of a model."""
    return {"GET": lambda _: json_reply(TRACE), "POST": _set_trace}


def logging_endpoints() -> Endpoints:
    """The endpoints of the log settings."""
    return {"GET": lambda _: json_reply(LOGGING), "POST": _set_logging}


def shared_memory_endpoints(rest: list[str]) -> Endpoints:
    """The endpoints behind ``/v2/systemsharedmemory`` and ``/v2/cudasharedmemory``.

    There is never a region: the list is empty, and to unregister all of none succeeds.
    """
    match rest:
        case ["status"] | ["region", _, "status"]:
            return {"GET": lambda _: json_reply([])}
        case ["region", _, "register"]:
            return {"POST": _refuse_region}
        case ["unregister"] | ["region", _, "unregister"]:
            return {"POST": lambda _: Reply(200)}
        case _:
            return {}


def _set_trace(request: Request) -> Reply:
    _check_unchanged(request, TRACE, "Traces are not supported; the trace level stays OFF.")
    return json_reply(TRACE)


def _set_logging(request: Request) -> Reply:
    _check_unchanged(request, LOGGING, "The log settings of this server cannot be changed.")
    return json_reply(LOGGING)


def _check_unchanged(request: Request, now: Mapping[str, Any], message: str) -> None:
    """Raises OperatorError ``bad_request`` for a setting with another value. null is no value."""
    for name, value in decode(request.body or b"{}", dict[str, Any]).items():
        if value is None or now.get(name) == value:
            continue
        if name == "trace_level" and value == "OFF":
            continue
        raise OperatorError(
            "bad_request", message, field=name[:64], hint="Read the settings with GET."
        )


def _refuse_region(_: Request) -> Reply:
    raise OperatorError(
        "bad_request",
        "Tensors in shared memory are not supported.",
        hint="Send tensors in the body, as binary: a large body is not copied.",
    )
