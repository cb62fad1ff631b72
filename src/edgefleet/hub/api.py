"""HTTP routes of the main listener: the operator plane, and device requests except check-ins."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, assert_never

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from edgefleet.base.errors import OperatorError
from edgefleet.hub.blobs import too_large
from edgefleet.hub.bodies import announced_bytes, pieces, query_number, read_json
from edgefleet.hub.downloads import artifact_answer
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import (
    AUDIT_PAGE,
    AUDIT_PAGE_MAX,
    CHECKIN_BODY_BYTES,
    DEVICE_PAGE,
    DEVICE_PAGE_MAX,
)
from edgefleet.hub.problems import HANDLERS
from edgefleet.hub.rollout_commands import read_verb
from edgefleet.protocol.api import ENDPOINTS, Endpoint, Role
from edgefleet.protocol.device import Endpoints, EnrolRequest
from edgefleet.protocol.device_commands import (
    ClearCopy,
    DeviceFilter,
    LabelDevice,
    RemoveDevice,
    RenameDevice,
)
from edgefleet.protocol.operator import (
    ArtifactView,
    ClaimRequest,
    PublishRequest,
    TrustKey,
    TruthRequest,
    Unquarantine,
)
from edgefleet.protocol.restored import AcceptRestored, ReenrolRequest
from edgefleet.protocol.rollout import ApproveRequest, Command, Freeze, RolloutSpec
from edgefleet.protocol.wire import Wire, encode
from edgefleet.security.credentials import bearer, same_token

Answer = Wire | Response
Serve = Callable[[Hub, Request], Awaitable[Answer]]

ACTOR: Final = "operator"  # all operators share one token, so the audit log has one name


def create_app(hub: Hub, extra_routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The main listener's application. ``extra_routes`` must check their own credentials."""
    routes = [
        Route(
            endpoint.path, _Guarded(hub, endpoint, SERVED[endpoint.name]), methods=[endpoint.method]
        )
        for endpoint in ENDPOINTS
        if endpoint.name in SERVED
    ]
    return Starlette(routes=[*routes, *extra_routes], exception_handlers=HANDLERS)


class _Guarded:
    """An endpoint as an ASGI application that checks the credential first."""

    def __init__(self, hub: Hub, endpoint: Endpoint, serve: Serve) -> None:
        self._hub = hub
        self._endpoint = endpoint
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        check_role(self._hub, self._endpoint.role, request.headers.get("authorization"))
        answer = await self._serve(self._hub, request)
        if not isinstance(answer, Response):
            answer = Response(encode(answer), media_type="application/json")
        await answer(scope, receive, send)


def check_role(hub: Hub, role: Role, authorization: str | None) -> None:
    """Raise OperatorError ``not_authorized`` or DeviceError ``credential_invalid``."""
    match role:
        case "anyone" | "claim":  # the claim is in the body; ``Devices.enrol`` checks it
            return
        case "operator":
            if not same_token(bearer(authorization), hub.operator_token):
                raise OperatorError("not_authorized", "The operator's token is missing or wrong.")
        case "device":
            hub.identify(authorization or "")
        case _:
            assert_never(role)


# The device plane.


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
    digest: str = request.path_params["sha256"]
    return artifact_answer(request, digest, hub.blobs.path(digest))


# Operators.


async def _health(hub: Hub, _request: Request) -> Answer:
    return hub.health()


async def _metrics(hub: Hub, _request: Request) -> Answer:
    return Response(hub.metrics(), media_type="text/plain; version=0.0.4")


async def _fleet(hub: Hub, _request: Request) -> Answer:
    return hub.fleet()


async def _claim(hub: Hub, request: Request) -> Answer:
    return await hub.claims(await read_json(request, ClaimRequest), ACTOR)


async def _trust(hub: Hub, request: Request) -> Answer:
    return await hub.registry.trust(await read_json(request, TrustKey))


async def _trusted(hub: Hub, _request: Request) -> Answer:
    return hub.registry.keys()


async def _artifact_put(hub: Hub, request: Request) -> Answer:
    most = hub.settings.max_artifact_bytes
    if (announced_bytes(request) or 0) > most:
        raise too_large(most)
    digest: str = request.path_params["sha256"]
    size_bytes = await hub.blobs.put(digest, pieces(request))
    return ArtifactView(sha256=digest, size_bytes=size_bytes)


async def _publish(hub: Hub, request: Request) -> Answer:
    return await hub.publish(await read_json(request, PublishRequest))


async def _models(hub: Hub, _request: Request) -> Answer:
    return hub.models()


async def _model(hub: Hub, request: Request) -> Answer:
    return hub.model(request.path_params["model"])


async def _model_field(hub: Hub, request: Request) -> Answer:
    return hub.model_field(request.path_params["model"])


async def _release(hub: Hub, request: Request) -> Answer:
    return hub.release(request.path_params["model"], request.path_params["release"])


async def _release_why(hub: Hub, request: Request) -> Answer:
    return hub.why_release(request.path_params["model"], request.path_params["release"])


async def _devices(hub: Hub, request: Request) -> Answer:
    query = request.query_params
    limit = query_number(request, "limit", default=DEVICE_PAGE, most=DEVICE_PAGE_MAX)
    only = DeviceFilter(
        selector=query.get("selector", ""),
        runs=query.get("runs", ""),
        phase=query.get("phase", ""),
        states=tuple(query.getlist("state")),
        search=query.get("search", ""),
    )
    return hub.devices(query.get("after"), limit or DEVICE_PAGE, only)


async def _names(hub: Hub, request: Request) -> Answer:
    query = request.query_params
    limit = query_number(request, "limit", default=DEVICE_PAGE, most=DEVICE_PAGE_MAX)
    return hub.names(
        request.path_params["kind"],
        query.get("prefix", ""),
        query.get("model", ""),
        limit or DEVICE_PAGE,
    )


async def _device(hub: Hub, request: Request) -> Answer:
    return hub.device(request.path_params["device"])


async def _device_why(hub: Hub, request: Request) -> Answer:
    return hub.why_device(request.path_params["device"])


async def _device_history(hub: Hub, request: Request) -> Answer:
    return hub.device_history(request.path_params["device"])


async def _device_figures(hub: Hub, request: Request) -> Answer:
    return hub.device_figures(request.path_params["device"])


async def _plan(hub: Hub, request: Request) -> Answer:
    return await hub.plan(await read_json(request, RolloutSpec), ACTOR)


async def _plan_fleet(hub: Hub, request: Request) -> Answer:
    return hub.plan_fleet(await read_json(request, RolloutSpec))


async def _rollouts(hub: Hub, request: Request) -> Answer:
    return hub.rollouts(request.query_params.get("model", ""))


async def _rollout(hub: Hub, request: Request) -> Answer:
    return hub.rollout(request.path_params["rollout"])


async def _rollout_why(hub: Hub, request: Request) -> Answer:
    return hub.why_rollout(request.path_params["rollout"])


async def _rollout_history(hub: Hub, request: Request) -> Answer:
    return hub.history(request.path_params["rollout"])


async def _command(hub: Hub, request: Request) -> Answer:
    verb = read_verb(request.path_params["verb"])
    command = await read_json(request, Command)
    return await hub.command(request.path_params["rollout"], verb, command, ACTOR)


async def _approve(hub: Hub, request: Request) -> Answer:
    approval = await read_json(request, ApproveRequest)
    return await hub.approve(request.path_params["rollout"], approval)


async def _accept_restored(hub: Hub, request: Request) -> Answer:
    return await hub.restored.accept(await read_json(request, AcceptRestored))


async def _freeze(hub: Hub, request: Request) -> Answer:
    return await hub.freeze(await read_json(request, Freeze))


async def _frozen(hub: Hub, _request: Request) -> Answer:
    return hub.frozen()


async def _quarantined(hub: Hub, _request: Request) -> Answer:
    return hub.quarantined()


async def _unquarantine(hub: Hub, request: Request) -> Answer:
    return await hub.unquarantine(
        request.path_params["device"], await read_json(request, Unquarantine)
    )


async def _clear_copy(hub: Hub, request: Request) -> Answer:
    row = hub.row(request.path_params["device"])
    return await hub.copied.clear(row, await read_json(request, ClearCopy))


async def _label_device(hub: Hub, request: Request) -> Answer:
    return await hub.device_commands.label(
        hub.row(request.path_params["device"]), await read_json(request, LabelDevice)
    )


async def _rename_device(hub: Hub, request: Request) -> Answer:
    return await hub.device_commands.rename(
        hub.row(request.path_params["device"]), await read_json(request, RenameDevice)
    )


async def _remove_device(hub: Hub, request: Request) -> Answer:
    return await hub.device_commands.remove(
        hub.row(request.path_params["device"]), await read_json(request, RemoveDevice)
    )


async def _add_truth(hub: Hub, request: Request) -> Answer:
    return await hub.add_truth(await read_json(request, TruthRequest))


async def _audit(hub: Hub, request: Request) -> Answer:
    before = query_number(request, "before", default=None, most=(1 << 62) - 1)
    limit = query_number(request, "limit", default=AUDIT_PAGE, most=AUDIT_PAGE_MAX)
    return hub.audit(before, limit or AUDIT_PAGE)


SERVED: Final[Mapping[str, Serve]] = {
    "enrol": _enrol,
    "reenrol": _reenrol,
    "endpoints": _endpoints,
    "device_manifest": _manifest,
    "device_artifact": _artifact,
    "health": _health,
    "metrics": _metrics,
    "fleet": _fleet,
    "claim": _claim,
    "trust": _trust,
    "trusted": _trusted,
    "artifact_head": _artifact,
    "artifact_put": _artifact_put,
    "artifact_get": _artifact,
    "publish": _publish,
    "models": _models,
    "model": _model,
    "model_field": _model_field,
    "release": _release,
    "release_why": _release_why,
    "devices": _devices,
    "names": _names,
    "device": _device,
    "device_why": _device_why,
    "device_history": _device_history,
    "device_figures": _device_figures,
    "plan": _plan,
    "plan_fleet": _plan_fleet,
    "rollouts": _rollouts,
    "rollout": _rollout,
    "rollout_why": _rollout_why,
    "rollout_history": _rollout_history,
    "accept_restored": _accept_restored,
    "approve": _approve,
    "freeze": _freeze,
    "frozen": _frozen,
    "quarantined": _quarantined,
    "unquarantine": _unquarantine,
    "clear_copy": _clear_copy,
    "label_device": _label_device,
    "rename_device": _rename_device,
    "remove_device": _remove_device,
    "add_truth": _add_truth,
    "command": _command,
    "audit": _audit,
}
"""The function of each endpoint, by its name in the table. Check-ins have their own listener."""
