"""The table endpoint -> permission, beside the table of endpoints. Without an entry: refused.

``hub.api`` and ``web.routes`` read it when they make their routes; a route without an entry stops
the hub at its start.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgefleet.protocol.people import Permission

_ACCOUNT, _VIEW, _OPERATE = Permission.ACCOUNT, Permission.VIEW, Permission.OPERATE
_APPROVE, _ADMINISTER = Permission.APPROVE, Permission.ADMINISTER

NEEDS: Final[Mapping[str, Permission]] = MappingProxyType(
    {
        "metrics": _VIEW,
        "fleet": _VIEW,
        "trusted": _VIEW,
        "models": _VIEW,
        "model": _VIEW,
        "model_field": _VIEW,
        "release": _VIEW,
        "release_why": _VIEW,
        "devices": _VIEW,
        "names": _VIEW,
        "device": _VIEW,
        "device_why": _VIEW,
        "device_history": _VIEW,
        "device_figures": _VIEW,
        "quarantined": _VIEW,
        "frozen": _VIEW,
        "rollouts": _VIEW,
        "rollout": _VIEW,
        "rollout_why": _VIEW,
        "rollout_history": _VIEW,
        "audit": _VIEW,
        "events": _VIEW,
        "claim": _OPERATE,
        "artifact_head": _OPERATE,
        "artifact_put": _OPERATE,
        "artifact_get": _OPERATE,  # the bytes of a model are not for every reader
        "publish": _OPERATE,
        "unquarantine": _OPERATE,
        "clear_copy": _OPERATE,
        "label_device": _OPERATE,
        "rename_device": _OPERATE,
        "remove_device": _OPERATE,
        "add_truth": _OPERATE,
        "freeze": _OPERATE,
        "plan": _OPERATE,
        "plan_fleet": _OPERATE,  # it counts the whole fleet
        "command": _OPERATE,
        "approve": _APPROVE,
        "trust": _ADMINISTER,
        "accept_restored": _ADMINISTER,
        "collect": _ADMINISTER,
        "users": _ADMINISTER,
        "user_add": _ADMINISTER,
        "user_change": _ADMINISTER,
        "hooks": _ADMINISTER,  # an address may contain a secret
        "hook_add": _ADMINISTER,
        "hook_change": _ADMINISTER,
        "hook_remove": _ADMINISTER,
        "hook_letters": _ADMINISTER,
        "hook_replay": _ADMINISTER,
        "token_create": _ADMINISTER,
        "user_password": _ACCOUNT,  # of others: administer, see ``hub.people``
        "tokens": _ACCOUNT,  # likewise
        "token_revoke": _ACCOUNT,  # likewise
        "login_link": _ACCOUNT,
    }
)
"""By the name of the endpoint, for those with the role ``operator``."""

ANYONE: Final = "anyone"
PAGE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/": "fleet",
        "/rollouts": "rollouts",
        "/rollouts/{rollout}": "rollout",
        "/devices": "devices",
        "/devices/{device}": "device",
        "/models": "models",
        "/models/{model}": "model",
        "/models/{model}/{release}": "release",
        "/audit": "audit",
        "/rollouts/{rollout}/approve": "approve",
        "/rollouts/{rollout}/{verb}": "command",
        "/fleet/{verb}": "freeze",
        "/devices/{device}/unquarantine": "unquarantine",
        "/login": ANYONE,
        "/logout": ANYONE,
        "/static/{name}": ANYONE,
        "/favicon.ico": ANYONE,
        "/{path:path}": ANYONE,  # the answer to an unknown address
    }
)
"""By the path of the page's route: the endpoint whose permission it needs. A twin (.json) is its
page's."""
