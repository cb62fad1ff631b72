"""HTTP routes of the main listener. Each endpoint for operators has a permission that it needs."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from re import Pattern
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from edgefleet.base.errors import OperatorError
from edgefleet.hub.bodies import announced_bytes, content_start, pieces, query_number, read_json
from edgefleet.hub.connection_places import Worth
from edgefleet.hub.cursors import read_choice
from edgefleet.hub.device_api import SERVED, Answer, Serve, artifact
from edgefleet.hub.event_stream import start_of
from edgefleet.hub.exchange import credential_shown
from edgefleet.hub.hooks_api import HOOKS
from edgefleet.hub.hub import Hub
from edgefleet.hub.limits import (
    AUDIT_PAGE,
    AUDIT_PAGE_MAX,
    DEVICE_PAGE,
    DEVICE_PAGE_MAX,
    ROLLOUTS_SHOWN,
)
from edgefleet.hub.part_files import too_large
from edgefleet.hub.people_api import PEOPLE
from edgefleet.hub.problems import HANDLERS, problem_answer
from edgefleet.hub.rollout_commands import read_verb
from edgefleet.protocol.api import ENDPOINTS, Endpoint
from edgefleet.protocol.collection import Collect
from edgefleet.protocol.device_commands import (
    ClearCopy,
    DeviceFilter,
    LabelDevice,
    RemoveDevice,
    RenameDevice,
)
from edgefleet.protocol.events import check_kinds
from edgefleet.protocol.operator import (
    ArtifactView,
    ClaimRequest,
    PublishRequest,
    TrustKey,
    TruthRequest,
    Unquarantine,
)
from edgefleet.protocol.permissions import NEEDS
from edgefleet.protocol.restored import AcceptRestored
from edgefleet.protocol.rollout import ApproveRequest, Command, Freeze, RolloutSpec
from edgefleet.protocol.wire import encode
from edgefleet.security.principals import Principal

_PARAMETER: Final = re.compile(r"\{\w+\}")
OperatorServe = Callable[[Hub, Request, Principal], Awaitable[Answer]]


def create_app(hub: Hub, extra_routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The main listener's application. ``extra_routes`` must check their own credentials."""
    served: dict[str, _EndpointRoute] = {}
    for endpoint in ENDPOINTS:
        if endpoint.role == "operator":
            answer = _for_principal(hub, endpoint, OPERATED[endpoint.name])
        elif endpoint.name in SERVED:
            answer = partial(_for_device, hub, endpoint, SERVED[endpoint.name])
        else:
            continue  # check-ins have their own listener
        app = _Endpoint(answer)
        served[endpoint.name] = _EndpointRoute(endpoint.path, app, methods=[endpoint.method])
    for route in served.values():
        route.yield_to(served.values())
    return Starlette(routes=[*served.values(), *extra_routes], exception_handlers=HANDLERS)


class _Endpoint:
    """An endpoint as an ASGI application. A class: Starlette wraps functions."""

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive, send))
        if not isinstance(answer, Response):
            answer = Response(encode(answer), media_type="application/json")
        await answer(scope, receive, send)


class _EndpointRoute(Route):
    """A route that yields a path to the route whose own text it is, also for another method.

    So a POST to ``/rollouts/{rollout}/why``, which has GET alone, is not one of the verb ``why``.
    """

    _others: tuple[Pattern[str], ...] = ()

    def yield_to(self, routes: Iterable["_EndpointRoute"]) -> None:
        """Of ``routes``, those with a path that this route would match."""
        self._others = tuple(
            other.path_regex
            for other in routes
            if other.path != self.path and self.path_regex.match(_PARAMETER.sub("x", other.path))
        )

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if any(other.match(scope.get("path", "")) for other in self._others):
            return Match.NONE, {}
        return super().matches(scope)


def _for_principal(
    hub: Hub, endpoint: Endpoint, serve: OperatorServe
) -> Callable[[Request], Awaitable[Answer]]:
    """Raises KeyError for an endpoint without an entry in the table of permissions."""
    needed = NEEDS[endpoint.name]

    async def answer(request: Request) -> Answer:
        address = request.client.host if request.client else ""
        try:
            by = hub.people.by_header(request.headers.get("authorization"), address)
        except OperatorError:
            hub.rates.failed(address)
            raise
        credential_shown(request.scope, Worth.PERSON)
        hub.rates.consume(by.name)
        by.check(needed, endpoint.name)
        return await serve(hub, request, by)

    return answer


async def _for_device(hub: Hub, endpoint: Endpoint, serve: Serve, request: Request) -> Answer:
    if endpoint.role == "device":  # a claim is in the body; ``Devices.enrol`` checks it
        hub.identify(request.headers.get("authorization", ""))
        credential_shown(request.scope, Worth.DEVICE)
    return await serve(hub, request)


async def _metrics(hub: Hub, _request: Request, _by: Principal) -> Answer:
    return Response(hub.metrics(), media_type="text/plain; version=0.0.4")


async def _fleet(hub: Hub, _request: Request, _by: Principal) -> Answer:
    return hub.fleet()


async def _claim(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.claims(await read_json(request, ClaimRequest), by)


async def _trust(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.registry.trust(await read_json(request, TrustKey), by)


async def _trusted(hub: Hub, _request: Request, _by: Principal) -> Answer:
    return hub.registry.keys()


async def _artifact(hub: Hub, request: Request, by: Principal) -> Answer:
    return artifact(hub, request, by.name)


async def _artifact_head(hub: Hub, request: Request, by: Principal) -> Answer:
    digest: str = request.path_params["sha256"]
    if hub.blobs.size(digest) is not None:
        hub.blobs.touch(digest)
        return artifact(hub, request, by.name)
    absent = OperatorError("not_found", f"There is no artifact {digest}.", field="sha256")
    return problem_answer(absent, {"upload-offset": str(hub.blobs.uploaded(digest))})


async def _artifact_put(hub: Hub, request: Request, _by: Principal) -> Answer:
    most = hub.settings.max_artifact_bytes
    start, announced = content_start(request), announced_bytes(request)
    if start + (announced or 0) > most:
        raise too_large(most)
    digest: str = request.path_params["sha256"]
    size_bytes = await hub.blobs.put(
        digest, pieces(request), start=start, announced_bytes=announced
    )
    return ArtifactView(sha256=digest, size_bytes=size_bytes)


async def _collect(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.collector.collect(await read_json(request, Collect), by)


async def _publish(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.publish(await read_json(request, PublishRequest), by)


async def _models(hub: Hub, _request: Request, _by: Principal) -> Answer:
    return hub.models()


async def _model(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.model(request.path_params["model"])


async def _model_field(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.model_field(request.path_params["model"])


async def _release(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.release(request.path_params["model"], request.path_params["release"])


async def _release_why(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.why_release(request.path_params["model"], request.path_params["release"])


async def _devices(hub: Hub, request: Request, _by: Principal) -> Answer:
    query = request.query_params
    limit = query_number(request, "limit", default=DEVICE_PAGE, most=DEVICE_PAGE_MAX)
    only = DeviceFilter(
        selector=query.get("selector", ""),
        runs=query.get("runs", ""),
        phase=query.get("phase", ""),
        states=tuple(query.getlist("state")),
        search=query.get("search", ""),
        profile=query.get("profile", ""),
        runtime=query.get("runtime", ""),
        agent=query.get("agent", ""),
        rollout=query.get("rollout", ""),
        standing=query.get("standing", ""),
    )
    return hub.devices(query.get("after"), limit or DEVICE_PAGE, only)


async def _names(hub: Hub, request: Request, _by: Principal) -> Answer:
    query = request.query_params
    limit = query_number(request, "limit", default=DEVICE_PAGE, most=DEVICE_PAGE_MAX)
    return hub.names(
        request.path_params["kind"],
        query.get("prefix", ""),
        query.get("model", ""),
        limit or DEVICE_PAGE,
    )


async def _device(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.device(request.path_params["device"])


async def _device_why(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.why_device(request.path_params["device"])


async def _device_history(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.device_history(request.path_params["device"])


async def _device_figures(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.device_figures(request.path_params["device"])


async def _plan(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.plan(await read_json(request, RolloutSpec), by)


async def _plan_fleet(hub: Hub, request: Request, _by: Principal) -> Answer:
    spec = await read_json(request, RolloutSpec)
    found = await hub.forks.run(lambda: encode(hub.plan_fleet(spec)))
    return Response(found, media_type="application/json")


async def _rollouts(hub: Hub, request: Request, _by: Principal) -> Answer:
    query = request.query_params
    limit = query_number(request, "limit", default=ROLLOUTS_SHOWN, most=ROLLOUTS_SHOWN)
    return hub.rollouts(
        query.get("model", ""),
        query.get("status", ""),
        after=query.get("after"),
        limit=limit or ROLLOUTS_SHOWN,
    )


async def _rollout(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.rollout(request.path_params["rollout"])


async def _rollout_why(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.why_rollout(request.path_params["rollout"])


async def _rollout_history(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.history(request.path_params["rollout"])


async def _command(hub: Hub, request: Request, by: Principal) -> Answer:
    verb = read_verb(request.path_params["verb"])
    command = await read_json(request, Command)
    return await hub.command(request.path_params["rollout"], verb, command, by)


async def _approve(hub: Hub, request: Request, by: Principal) -> Answer:
    approval = await read_json(request, ApproveRequest)
    return await hub.approve(request.path_params["rollout"], approval, by)


async def _accept_restored(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.restored.accept(await read_json(request, AcceptRestored), by)


async def _freeze(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.freeze(await read_json(request, Freeze), by)


async def _frozen(hub: Hub, _request: Request, _by: Principal) -> Answer:
    return hub.frozen()


async def _quarantined(hub: Hub, _request: Request, _by: Principal) -> Answer:
    return hub.quarantined()


async def _unquarantine(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.unquarantine(
        request.path_params["device"], await read_json(request, Unquarantine), by
    )


async def _clear_copy(hub: Hub, request: Request, by: Principal) -> Answer:
    row = hub.row(request.path_params["device"])
    return await hub.copied.clear(row, await read_json(request, ClearCopy), by)


async def _label_device(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.device_commands.label(
        hub.row(request.path_params["device"]), await read_json(request, LabelDevice), by
    )


async def _rename_device(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.device_commands.rename(
        hub.row(request.path_params["device"]), await read_json(request, RenameDevice), by
    )


async def _remove_device(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.device_commands.remove(
        hub.row(request.path_params["device"]), await read_json(request, RemoveDevice), by
    )


async def _add_truth(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.add_truth(await read_json(request, TruthRequest), by)


async def _audit(hub: Hub, request: Request, _by: Principal) -> Answer:
    before = query_number(request, "before", default=None, most=(1 << 62) - 1)
    limit = query_number(request, "limit", default=AUDIT_PAGE, most=AUDIT_PAGE_MAX)
    return hub.audit(before, limit or AUDIT_PAGE)


async def _events(hub: Hub, request: Request, by: Principal) -> Answer:
    query = request.query_params
    follow = read_choice(query.get("follow", "true"), ("true", "false"), "follow")
    authorization = request.headers.get("authorization")

    def allowed() -> None:
        hub.people.by_header(authorization, by.address).check(NEEDS["events"], "events")

    return hub.event_streams.open(
        by,
        allowed,
        check_kinds(tuple(query.getlist("kind"))),
        after=start_of(request),
        follow=follow != "false",
    )


OPERATED: Final[Mapping[str, OperatorServe]] = {
    "metrics": _metrics,
    "fleet": _fleet,
    "claim": _claim,
    "trust": _trust,
    "trusted": _trusted,
    "artifact_head": _artifact_head,
    "artifact_put": _artifact_put,
    "artifact_get": _artifact,
    "collect": _collect,
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
    "events": _events,
    **PEOPLE,
    **HOOKS,
}
"""The function of each endpoint for operators, by its name in the table."""
