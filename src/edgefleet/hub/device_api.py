"""HTTP requests of devices except check-ins, and the health of the hub, which anyone may ask."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from edgefleet.hub.bodies import read_json
from edgefleet.hub.downloads import artifact_answer
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import CHECKIN_BODY_BYTES
from edgefleet.protocol.device import Endpoints, EnrolRequest
from edgefleet.protocol.restored import ReenrolRequest
from edgefleet.protocol.wire import Wire

Answer = Wire | Response
Serve = Callable[[Hub, Request], Awaitable[Answer]]


async def _health(hub: Hub, _request: Request) -> Answer:
    return hub.health()


async def _openapi(_hub: Hub, _request: Request) -> Answer:
    from edgefleet.hub.openapi import document  # noqa: PLC0415 - most hubs are never asked

    return Response(document(), media_type="application/json")


async def _enrol(hub: Hub, request: Request) -> Answer:
    enrolment = await read_json(request, EnrolRequest, most=CHECKIN_BODY_BYTES)
    return await hub.enrol(enrolment, request.url.hostname)


async def _reenrol(hub: Hub, request: Request) -> Answer:
    authorization = request.headers.get("authorization", "")
    hub.check_issued(authorization)
    asked = await read_json(request, ReenrolRequest, most=CHECKIN_BODY_BYTES)
    return await hub.reenrol(authorization, asked, request.url.hostname)


async def _endpoints(hub: Hub, request: Request) -> Answer:
    return Endpoints(checkin_url=hub.checkin_url(request.url.hostname))


async def _manifest(hub: Hub, request: Request) -> Answer:
    return hub.registry.manifest(request.path_params["sha256"])


async def _artifact(hub: Hub, request: Request) -> Answer:
    row = hub.identify(request.headers.get("authorization", ""))
    return artifact(hub, request, f"device {row}")


def artifact(hub: Hub, request: Request, owner: str) -> Answer:
    """The answer to a request of ``owner`` for an artifact. Raises OperatorError."""
    digest: str = request.path_params["sha256"]
    return artifact_answer(request, digest, hub.blobs.path(digest), hub.downloads, owner)


SERVED: Final[Mapping[str, Serve]] = {
    "enrol": _enrol,
    "reenrol": _reenrol,
    "endpoints": _endpoints,
    "device_manifest": _manifest,
    "device_artifact": _artifact,
    "health": _health,
    "openapi": _openapi,
}
"""The function of each endpoint, by its name in the table."""
