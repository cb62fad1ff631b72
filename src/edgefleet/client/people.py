"""The part of the client for users, API tokens and logins."""

from collections.abc import Mapping
from typing import Protocol, TypeVar

from edgefleet.protocol.people import (
    AddUser,
    ChangePassword,
    ChangeUser,
    CreatedToken,
    CreateToken,
    LoginLink,
    RevokeToken,
    Tokens,
    TokenView,
    Users,
    UserView,
    WhoAmI,
)
from edgefleet.protocol.wire import Wire

W = TypeVar("W", bound=Wire)


class Ask(Protocol):
    """Sends a request to an endpoint, see ``HubClient``."""

    def __call__(
        self,
        name: str,
        kind: type[W],
        *,
        parameters: Mapping[str, str] | None = None,
        body: Wire | None = None,
    ) -> W: ...


class PeopleCalls:
    """One method per endpoint. The methods raise as those of ``HubClient`` do."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def whoami(self) -> WhoAmI:
        """The principal of the token."""
        return self._ask("whoami", WhoAmI)

    def users(self) -> Users:
        return self._ask("users", Users)

    def add_user(self, request: AddUser) -> UserView:
        return self._ask("user_add", UserView, body=request)

    def change_user(self, name: str, request: ChangeUser) -> UserView:
        """Change the role of a user, disable or enable a user."""
        return self._ask("user_change", UserView, parameters={"user": name}, body=request)

    def set_password(self, name: str, request: ChangePassword) -> UserView:
        return self._ask("user_password", UserView, parameters={"user": name}, body=request)

    def tokens(self) -> Tokens:
        """The API tokens of this user; for an admin those of all users."""
        return self._ask("tokens", Tokens)

    def create_token(self, request: CreateToken) -> CreatedToken:
        """Create a token. The answer alone has its text."""
        return self._ask("token_create", CreatedToken, body=request)

    def revoke_token(self, id_: str, request: RevokeToken) -> TokenView:
        return self._ask("token_revoke", TokenView, parameters={"token": id_}, body=request)

    def login_link(self) -> LoginLink:
        """A link that opens the page once, as this user."""
        return self._ask("login_link", LoginLink)
