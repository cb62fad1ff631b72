"""Users of the hub, their API tokens, and what each role may do."""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

from msgspec import Meta

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.wire import Wire


class Role(StrEnum):
    """A set of permissions. Each role has the permissions of those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Permission(StrEnum):
    """An endpoint needs one, see ``permissions.NEEDS``."""

    ACCOUNT = "account"  # the user's own tokens, password and login
    VIEW = "view"  # read
    OPERATE = "operate"  # publish, enrol, plan, start, stop, freeze
    APPROVE = "approve"  # approve a rollout that another user planned
    ADMINISTER = "administer"  # users, tokens of others, trusted keys, a restored hub


_LEAST: Final = {
    Permission.ACCOUNT: Role.VIEWER,
    Permission.VIEW: Role.VIEWER,
    Permission.OPERATE: Role.OPERATOR,
    Permission.APPROVE: Role.APPROVER,
    Permission.ADMINISTER: Role.ADMIN,
}
_ORDER: Final = tuple(Role)
ROLES: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        role: frozenset(
            permission
            for permission, least in _LEAST.items()
            if _ORDER.index(role) >= _ORDER.index(least)
        )
        for role in Role
    }
)
"""The permissions of each role."""


def least_role(permission: Permission) -> Role:
    """The role with the fewest permissions that has this one."""
    return _LEAST[permission]


def lower_role(one: Role, other: Role) -> Role:
    """Of two roles, the one with fewer permissions."""
    return min(one, other, key=_ORDER.index)


OPERATOR: Final = "operator"
"""The name of the operator token's holder. No user has it."""

_USER_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,61}[a-z0-9])?")
_RESERVED: Final = frozenset({OPERATOR, "gate", "hub"})  # other actors of the audit log

PASSWORD_CHARS: Final = 12  # at least
Password = Annotated[str, Meta(max_length=256)]
_Note = Annotated[str, Meta(max_length=200)]


class WhoAmI(Wire, frozen=True, kw_only=True):
    """The principal of a request. ``way``: the credential, such as token 3f9a0c11d2."""

    name: str
    role: Role
    permissions: tuple[Permission, ...]
    way: str
    address: str = ""  # of the client, as the hub sees it


class AddUser(Wire, frozen=True, kw_only=True):
    """A user without a password has API tokens only. ``name``: lower case, such as ada."""

    name: str
    role: Role
    password: Password = ""


class ChangeUser(Wire, frozen=True, kw_only=True):
    """None leaves a value as it is. A disabled user has no valid token and no valid session."""

    role: Role | None = None
    disabled: bool | None = None


class ChangePassword(Wire, frozen=True, kw_only=True):
    """``current`` is needed for the own password. The sessions of the user end."""

    password: Password
    current: Password = ""


class UserView(Wire, frozen=True, kw_only=True):
    name: str
    role: Role
    source: str  # of the login: "local", a password or token of this hub
    disabled: bool = False
    has_password: bool = False
    created_at: float
    tokens: int = 0  # the valid ones


class Users(Wire, frozen=True, kw_only=True):
    users: tuple[UserView, ...]


class CreateToken(Wire, frozen=True, kw_only=True):
    """``role`` None: that of the user. ``valid_s`` in seconds; None: until it is revoked."""

    user: str
    role: Role | None = None
    valid_s: Annotated[float, Meta(gt=0, le=10 * 366 * 86_400)] | None = None
    note: _Note = ""


class RevokeToken(Wire, frozen=True, kw_only=True):
    note: _Note = ""


class TokenView(Wire, frozen=True, kw_only=True):
    """An API token without its secret. Times in seconds since 1970."""

    id: str
    user: str
    role: Role
    note: str = ""
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used: float | None = None  # exact to a minute


class Tokens(Wire, frozen=True, kw_only=True):
    tokens: tuple[TokenView, ...]


class CreatedToken(Wire, frozen=True, kw_only=True):
    """``token`` is shown once: the hub stores only its digest."""

    token: str
    view: TokenView


class LoginLink(Wire, frozen=True, kw_only=True):
    """``path`` on the hub opens the page for one login until ``expires_at``."""

    path: str
    expires_at: float


def check_user_name(name: str, *, field: str = "name") -> str:
    """Return ``name`` if a user may have it. Raises OperatorError ``name_invalid``."""
    if _USER_NAME.fullmatch(name) is None or name in _RESERVED or ".." in name:
        raise OperatorError(
            "name_invalid",
            f"{name!r} is not a valid name of a user.",
            field=field,
            hint="Use lower-case letters, digits and ._@+-, such as ada or ada@example.org; "
            "operator, gate and hub are taken.",
        )
    return name
