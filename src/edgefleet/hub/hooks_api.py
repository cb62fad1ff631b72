"""HTTP requests about web hooks."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request

from edgefleet.hub.bodies import read_json
from edgefleet.hub.device_api import Answer
from edgefleet.hub.hub import Hub
from edgefleet.protocol.hooks import AddHook, ChangeHook, RemoveHook, ReplayLetters
from edgefleet.security.principals import Principal


async def _hooks(hub: Hub, _request: Request, _by: Principal) -> Answer:
    return hub.hooks.views()


async def _add(hub: Hub, request: Request, by: Principal) -> Answer:
    return await hub.hooks.add(await read_json(request, AddHook), by)


async def _change(hub: Hub, request: Request, by: Principal) -> Answer:
    change = await read_json(request, ChangeHook)
    return await hub.hooks.change(request.path_params["hook"], change, by)


async def _remove(hub: Hub, request: Request, by: Principal) -> Answer:
    await read_json(request, RemoveHook)
    return await hub.hooks.remove(request.path_params["hook"], by)


async def _letters(hub: Hub, request: Request, _by: Principal) -> Answer:
    return hub.hooks.letters(request.path_params["hook"])


async def _replay(hub: Hub, request: Request, _by: Principal) -> Answer:
    wanted = await read_json(request, ReplayLetters)
    return await hub.hooks.replay(request.path_params["hook"], wanted)


HOOKS: Final[Mapping[str, Callable[[Hub, Request, Principal], Awaitable[Answer]]]] = {
    "hooks": _hooks,
    "hook_add": _add,
    "hook_change": _change,
    "hook_remove": _remove,
    "hook_letters": _letters,
    "hook_replay": _replay,
}
"""The function of each endpoint, by its name in the table."""
