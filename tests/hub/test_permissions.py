"""Every route has a permission, and every role gets those routes alone that its permissions allow."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.routing import BaseRoute, Route

from edgefleet.base.entropy import SeededEntropy
from edgefleet.hub.api import create_app
from edgefleet.hub.hub import Hub
from edgefleet.protocol.api import BY_NAME, ENDPOINTS
from edgefleet.protocol.people import AddUser, CreateToken, Permission, Role
from edgefleet.protocol.permissions import ANYONE, NEEDS, PAGE
from edgefleet.protocol.wire import Problem, decode
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.web.routes import routes_for
from edgefleet.web.session import form_token
from support.asgi import Reply, ask_within
from support.hub_inside import hub_inside

MAY = {
    Role.VIEWER: {Permission.ACCOUNT, Permission.VIEW},
    Role.OPERATOR: {Permission.ACCOUNT, Permission.VIEW, Permission.OPERATE},
    Role.APPROVER: {
        Permission.ACCOUNT, Permission.VIEW, Permission.OPERATE, Permission.APPROVE
    },
    Role.ADMIN: set(Permission),
}  # fmt: skip
"""Written out again: the table of the product is computed."""

PARAMETERS = {
    "sha256": "a" * 64, "model": "digits", "release": "1", "device": "d0", "rollout": "ro-1",
    "verb": "pause", "kind": "devices", "user": "ada", "token": "0" * 10, "hook": "0" * 10, "name": "style.css",
    "path": "nosuch",
}  # fmt: skip
PASSWORD = "correct horse battery"


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)(:path)?\}", lambda found: PARAMETERS[found[1]], path)


@dataclass
class Request:
    """One route with one method; ``needed`` is the permission. None: anyone."""

    method: str
    path: str
    needed: Permission | None
    is_page: bool


def requests_of(routes: Sequence[BaseRoute]) -> Iterator[Request]:
    """Every route of the application, with its permission by the table."""
    by_route = {(row.method, row.path): row for row in ENDPOINTS}
    for route in routes:
        assert isinstance(route, Route), route
        for method in sorted((route.methods or {"GET"}) - {"HEAD"} or {"HEAD"}):
            row = by_route.get((method, route.path))
            if row is None:
                name = PAGE[route.path.removesuffix(".json")]
                needed = None if name == ANYONE else NEEDS[name]
                yield Request(method, route.path, needed, True)
            elif row.role == "operator":
                yield Request(method, route.path, NEEDS[row.name], False)
            else:
                yield Request(method, route.path, None, False)


def test_the_tables_name_what_exists_and_miss_nothing() -> None:
    assert set(NEEDS) == {row.name for row in ENDPOINTS if row.role == "operator"}
    assert set(PAGE.values()) <= {*NEEDS, ANYONE}


def test_a_route_without_an_entry_stops_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            create_app(hub, routes_for(hub))
            fewer = {name: one for name, one in NEEDS.items() if name != "freeze"}
            monkeypatch.setattr("edgefleet.hub.api.NEEDS", fewer)
            monkeypatch.setattr("edgefleet.web.routes.NEEDS", fewer)
            with pytest.raises(KeyError, match="freeze"):
                create_app(hub)
            with pytest.raises(KeyError, match="freeze"):
                routes_for(hub)

    asyncio.run(main())


async def tokens_of_roles(hub: Hub) -> dict[Role, str]:
    made = {}
    for role in Role:
        name = f"a-{role}"
        await hub.people.add_user(AddUser(name=name, role=role), OPERATOR_TOKEN)
        created = await hub.people.create_token(CreateToken(user=name), OPERATOR_TOKEN)
        made[role] = created.token
    return made


def test_every_route_and_every_role(tmp_path: Path) -> None:
    async def main() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            app = create_app(hub, routes_for(hub))
            tokens = await tokens_of_roles(hub)

            async def ask(request: Request, *, token: str = "", session: str = "") -> Reply:
                headers = {"content-type": "application/x-www-form-urlencoded"}
                headers |= {"authorization": f"Bearer {token}"} if token else {}
                headers |= {"cookie": f"{hub.logins.cookie}={session}"} if session else {}
                form = urlencode({"form_token": form_token(session, SeededEntropy(1))})
                body = form.encode() if request.is_page and request.method == "POST" else b""
                path = filled(request.path)
                path += "?follow=false" if path.endswith("/events") else ""  # else it has no end
                return await ask_within(app, request.method, path, headers=headers, body=body)

            walked = list(requests_of(app.routes))
            assert len(walked) > len(ENDPOINTS) + len(PAGE)  # and the twins
            for request in walked:
                if request.needed is None:
                    continue
                assert (await ask(request)).status == 401, request
                for role in Role:
                    allowed = request.needed in MAY[role]
                    session = ""
                    if request.is_page:
                        by = hub.people.by_token(tokens[role], "")
                        session = await hub.logins.open(by)
                    reply = await ask(
                        request, token="" if request.is_page else tokens[role], session=session
                    )
                    code = (role, request, reply.status, reply.body[:200])
                    if allowed:
                        assert reply.status not in (401, 403), code
                    else:
                        assert reply.status == 403, code
                        if not request.is_page:
                            told = decode(reply.body, Problem)
                            assert told.code == "forbidden", code
                            assert f"the permission {request.needed}" in told.message, code
                            assert "edgefleet user role" in (told.hint or ""), code

    asyncio.run(main())


def test_the_example_of_each_permission() -> None:
    """Some rows written out by hand: a table cannot check itself."""
    expected = {
        "fleet": Permission.VIEW, "metrics": Permission.VIEW, "audit": Permission.VIEW,
        "artifact_put": Permission.OPERATE, "artifact_get": Permission.OPERATE,
        "publish": Permission.OPERATE, "command": Permission.OPERATE, "claim": Permission.OPERATE,
        "approve": Permission.APPROVE, "trust": Permission.ADMINISTER,
        "user_add": Permission.ADMINISTER, "token_create": Permission.ADMINISTER,
    }  # fmt: skip
    assert {name: NEEDS[name] for name in expected} == expected
    assert all(BY_NAME[name].role == "operator" for name in expected)
