"""HTTP requests about users, API tokens and logins."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request

from edgefleet.hub.bodies import read_json
from edgefleet.hub.device_api import Answer
from edgefleet.hub.hub import Hub
from edgefleet.protocol.people import (
    AddUser,
    ChangePassword,
    ChangeUser,
    CreateToken,
    Permission,
    RevokeToken,
    WhoAmI,
)
from edgefleet.security.principals import Principal


async def _whoami(_hub: Hub, _request: Request, by: Principal) -> Answer:
    return WhoAmI(
        name=by.name,
        role=by.role,
        permissions=tuple(one for one in Permission if by.may(one)),
        way=by.way,
        address=by.address,
    )


async def _users(hub: Hub, _request: Request, _by: Principal) -> Answer:
    return hub.people.users()


async def _user_add(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.people.add_user(await read_json(request, AddUser), by)


async def _user_change(hub: Hub, request: Request, by: Principal) -> Answer:
    change = await read_json(request, ChangeUser)
    return await hub.people.change_user(request.path_params["user"], change, by)


async def _user_password(hub: Hub, request: Request, by: Principal) -> Answer:
    change = await read_json(request, ChangePassword)
    return await hub.people.set_password(request.path_params["user"], change, by)


async def _tokens(hub: Hub, _request: Request, by: Principal) -> Answer:
    return hub.people.tokens(by)


async def _token_create(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.people.create_token(await read_json(request, CreateToken), by)


async def _token_revoke(hub: Hub, request: Request, by: Principal) -> Answer:
    revocation = await read_json(request, RevokeToken)
    return await hub.people.revoke_token(request.path_params["token"], revocation, by)


async def _login_link(hub: Hub, _request: Request, by: Principal) -> Answer:
    return hub.logins.link(by)


PEOPLE: Final[Mapping[str, Callable[[Hub, Request, Principal], Awaitable[Answer]]]] = {
    "whoami": _whoami,
    "users": _users,
    "user_add": _user_add,
    "user_change": _user_change,
    "user_password": _user_password,
    "tokens": _tokens,
    "token_create": _token_create,
    "token_revoke": _token_revoke,
    "login_link": _login_link,
}
"""The function of each endpoint, by its name in the table."""
