"""Users and API tokens, in memory. A change is durable before it takes effect here.

So a revoked token or a disabled user is refused from the next request on.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import utc_text
from edgefleet.hub.actors import line_by
from edgefleet.hub.limits import HASHES_AT_ONCE, LAST_USED_S, TOKEN_KEPT_S, TOKENS, USERS
from edgefleet.hub.provider_names import free_name
from edgefleet.hub.store import people as writes
from edgefleet.hub.store.people import StoredToken, StoredUser
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.people import (
    AddUser,
    ChangePassword,
    ChangeUser,
    CreatedToken,
    CreateToken,
    Permission,
    RevokeToken,
    Role,
    Tokens,
    TokenView,
    Users,
    UserView,
    check_user_name,
    lower_role,
)
from edgefleet.rollout.lifecycle.step import AuditLine
from edgefleet.security.api_tokens import new_api_token, read_api_token
from edgefleet.security.credentials import bearer, same_token
from edgefleet.security.passwords import (
    NO_PASSWORD,
    check_password,
    hash_password,
    password_fits,
)
from edgefleet.security.principals import OPERATOR_TOKEN, Principal

Change = Callable[[StoredUser], tuple[StoredUser, list[AuditLine]]]
"""The user after a change, and the audit lines. Without lines nothing changed."""

LOCAL: Final = "local"
OIDC: Final = "oidc"


class People:
    """``ended`` is called with the name of each user whose sessions end."""

    def __init__(
        self, store: SqliteStore, clock: Clock, entropy: Entropy, *, operator_token: str
    ) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._operator_token = operator_token
        self._users: dict[str, StoredUser] = {}
        self._identities: dict[tuple[str, str], str] = {}  # names of users, by issuer and subject
        self._tokens: dict[str, StoredToken] = {}
        self._used: dict[str, float] = {}  # since the last flush
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)  # each takes 32 MiB
        self._turn = asyncio.Lock()  # a change of a user is made of the state after the last one
        self.ended: Callable[[str], None] = lambda _user: None

    def load(self) -> None:
        """Restore users and tokens from the store."""
        for user in self._store.reader.people.users():
            self._keep_user(user)
        since = self._clock.now() - TOKEN_KEPT_S
        self._tokens = {token.id: token for token in self._store.reader.people.tokens(since)}

    async def flush(self) -> None:
        """Store when tokens were last used."""
        if not self._used:
            return
        used, self._used = self._used, {}
        await self._store.writer.submit(writes.save_last_used(used))

    # Credentials.

    def by_header(self, authorization: str | None, address: str) -> Principal:
        """The principal of an ``Authorization`` header. Raises as ``by_token``."""
        return self.by_token(bearer(authorization), address)

    def by_token(self, text: str, address: str) -> Principal:
        """The principal of a token. Raises OperatorError ``unauthenticated``."""
        if same_token(text, self._operator_token):
            return replace(OPERATOR_TOKEN, address=address)
        given = read_api_token(text)
        token = None if given is None else self._tokens.get(given.id)
        if given is None or token is None or not given.has_digest(token.digest):
            raise OperatorError("unauthenticated", "The token is missing or wrong.")
        self._check_valid(token)
        self._note_use(token)
        return self.principal(token.user, token.role, f"token {token.id}", address, token.id)

    def principal(
        self, name: str, role: Role, way: str, address: str, token: str = ""
    ) -> Principal:
        """A user with at most ``role``. Raises OperatorError ``unauthenticated``."""
        user = self._users.get(name)
        if user is None or user.disabled:
            raise OperatorError("unauthenticated", f"The user {name} is disabled.")
        return Principal(name, lower_role(role, user.role), way, address, token)

    def token_is_valid(self, id_: str) -> bool:
        """Whether the token exists, is not revoked and has not expired."""
        token = self._tokens.get(id_)
        return token is not None and self._valid(token)

    async def password_is_right(self, name: str, password: str) -> bool:
        """Whether an enabled user has this password. Takes equally long for each name."""
        user = self._users.get(name)
        stored = user.password if user is not None else ""
        async with self._hashing:
            fits = await asyncio.to_thread(password_fits, password, stored or NO_PASSWORD)
        return fits and user is not None and not user.disabled

    # Users.

    def role_of(self, name: str) -> Role:
        """Raises OperatorError ``not_found``."""
        return self._user(name).role

    def users(self) -> Users:
        return Users(users=tuple(map(self._user_view, self._users.values())))

    async def add_user(self, request: AddUser, by: Principal) -> UserView:
        """Raises OperatorError ``name_invalid``, ``user_exists``, ``password_weak``."""
        name = check_user_name(request.name)
        if len(self._users) >= USERS:
            raise OperatorError("bad_request", f"The hub has {USERS} users, which is the limit.")
        password = await self._hashed(request.password) if request.password else ""
        user = StoredUser(name, request.role, LOCAL, password, False, self._clock.now())
        detail = f"{request.role}, {'with a' if password else 'without a'} password"
        await self._store.change(
            writes.add_user(user),
            [line_by(by, "add_user", f"user/{name}", detail)],
            self._clock.now(),
            self._keep_user,
        )
        return self._user_view(user)

    async def change_user(self, name: str, request: ChangeUser, by: Principal) -> UserView:
        """Change role or state. Raises OperatorError ``not_found`` or ``bad_request``."""
        if name == by.name:
            raise OperatorError("bad_request", "An admin cannot change the own role or state.")
        if request.role is not None and self._user(name).source != LOCAL:
            raise OperatorError(
                "bad_request",
                f"The role of {name} comes from the groups at the provider.",
                field="role",
                hint="Change the groups there, or the mapping: --oidc-role GROUP=ROLE.",
            )

        def change(user: StoredUser) -> tuple[StoredUser, list[AuditLine]]:
            role = user.role if request.role is None else request.role
            disabled = user.disabled if request.disabled is None else request.disabled
            lines: list[AuditLine] = []
            if role is not user.role:
                detail = f"from {user.role} to {role}"
                lines.append(line_by(by, "change_role", f"user/{name}", detail))
            if disabled != user.disabled:
                action = "disable_user" if disabled else "enable_user"
                lines.append(line_by(by, action, f"user/{name}"))
            return replace(user, role=role, disabled=disabled), lines

        return await self._change(name, change, end_sessions=bool(request.disabled))

    async def set_password(self, name: str, request: ChangePassword, by: Principal) -> UserView:
        """Replace a password, and end the sessions of the user.

        Raises OperatorError ``not_found``, ``forbidden``, ``password_weak``, ``bad_request``.
        """
        if name != by.name:
            by.check(Permission.ADMINISTER, f"to set the password of {name}")
        user = self._user(name)
        if user.source != LOCAL:
            raise OperatorError("bad_request", f"{name} has no password at this hub.")
        if name == by.name and not await self.password_is_right(name, request.current):
            raise OperatorError("bad_request", "The current password is wrong.", field="current")
        password = await self._hashed(request.password)
        lines = [line_by(by, "set_password", f"user/{name}")]
        return await self._change(
            name, lambda user: (replace(user, password=password), lines), end_sessions=True
        )

    async def enter_from_provider(
        self, identity: tuple[str, str], shown: str, role: Role, way: str, address: str
    ) -> Principal:
        """The user who is this (issuer, subject): added at the first login, then kept for ever.

        ``shown`` is the name at the provider, on which no right depends. Raises OperatorError
        ``unauthenticated`` for a disabled user.
        """

        async def entering() -> Principal:
            async with self._turn:
                name = self._identities.get(identity)
                found = None if name is None else self._users[name]
                if found is None:
                    if len(self._users) >= USERS:
                        raise OperatorError("unauthenticated", f"The hub has {USERS} users.")
                    name = free_name(shown, identity, self._users)
                    now = self._clock.now()
                    user = StoredUser(name, role, OIDC, "", False, now, *identity)
                    action, detail = "add_user", f"{role}, {identity[1]} of {identity[0]}"
                    job = writes.add_user(user)
                else:
                    user = replace(found, role=role)
                    action, detail = "change_role", f"from {found.role} to {role}, by the provider"
                    job = writes.save_user(user, end_sessions=False)
                by = Principal(user.name, role, way, address)
                if found is None or (found.role is not role and not found.disabled):
                    line = line_by(by, action, f"user/{user.name}", detail)
                    await self._store.change(job, [line], self._clock.now(), self._keep_user)
                return self.principal(user.name, role, way, address)

        return await asyncio.shield(entering())

    def name_of(self, identity: tuple[str, str]) -> str:
        """The name of the user who is this (issuer, subject). Empty if there is none."""
        return self._identities.get(identity, "")

    async def end_sessions(self, name: str) -> None:
        """End the sessions of a user to whom the provider gives no role any more."""
        detail = "the provider gives no role"
        line = AuditLine(actor="hub", action="end_sessions", about=f"user/{name}", detail=detail)
        await self._change(name, lambda user: (user, [line]), end_sessions=True)

    def is_user(self, name: str) -> bool:
        return name in self._users

    async def _change(self, name: str, change: Change, *, end_sessions: bool) -> UserView:
        """Replace a user. If the caller is cancelled, the change still completes."""

        async def changing() -> UserView:
            async with self._turn:
                changed, lines = change(self._user(name))

                def committed(user: StoredUser) -> None:
                    self._users[name] = user
                    if end_sessions:
                        self.ended(name)

                if lines:
                    job = writes.save_user(changed, end_sessions=end_sessions)
                    await self._store.change(job, lines, self._clock.now(), committed)
                return self._user_view(changed)

        return await asyncio.shield(changing())

    # Tokens.

    def tokens(self, by: Principal) -> Tokens:
        """The tokens of this user; for an admin those of all."""
        shown = (
            token
            for token in self._tokens.values()
            if by.may(Permission.ADMINISTER) or token.user == by.name
        )
        return Tokens(tokens=tuple(map(self._token_view, shown)))

    async def create_token(self, request: CreateToken, by: Principal) -> CreatedToken:
        """Raises OperatorError ``not_found`` or ``bad_request``."""
        user, now = self._user(request.user), self._clock.now()
        role = request.role or user.role
        if lower_role(role, user.role) is not role:
            raise OperatorError(
                "bad_request",
                f"{user.name} has the role {user.role}: a token cannot have {role}.",
                field="role",
            )
        if sum(map(self._valid, self._tokens.values())) >= TOKENS:
            raise OperatorError("bad_request", f"The hub has {TOKENS} tokens, which is the limit.")
        made = new_api_token(self._entropy)
        expires_at = None if request.valid_s is None else now + request.valid_s
        token = StoredToken(made.id, user.name, made.digest, role, request.note, now, expires_at)
        until = "until revoked" if expires_at is None else f"until {utc_text(expires_at)}"
        detail = f"{token.id} for {user.name} as {role}, {until}. {request.note}".rstrip(". ")
        await self._store.change(
            writes.add_token(token, forget_before=now - TOKEN_KEPT_S),
            [line_by(by, "create_token", f"user/{user.name}", detail)],
            now,
            self._keep_token,
        )
        return CreatedToken(token=made.text, view=self._token_view(token))

    async def revoke_token(self, id_: str, request: RevokeToken, by: Principal) -> TokenView:
        """Raises OperatorError ``not_found``: also for a token of another user."""
        token = self._tokens.get(id_)
        own = token is not None and token.user == by.name
        if token is None or not (own or by.may(Permission.ADMINISTER)):
            raise OperatorError("not_found", f"There is no token {id_}.", field="token")
        if token.revoked_at is None:
            token, now = replace(token, revoked_at=self._clock.now()), self._clock.now()
            detail = f"{id_}. {request.note}".rstrip(". ")
            line = line_by(by, "revoke_token", f"user/{token.user}", detail)
            await self._store.change(writes.revoke_token(token), [line], now, self._keep_token)
        return self._token_view(token)

    def _check_valid(self, token: StoredToken) -> None:
        """Raises OperatorError ``unauthenticated``, for the holder of the secret alone."""
        if self._valid(token):
            return
        ended = "was revoked" if token.revoked_at is not None else "has expired"
        raise OperatorError("unauthenticated", f"The token {token.id} of {token.user} {ended}.")

    def _valid(self, token: StoredToken) -> bool:
        expires_at = token.expires_at
        return token.revoked_at is None and (expires_at is None or self._clock.now() < expires_at)

    def _note_use(self, token: StoredToken) -> None:
        now = self._clock.now()
        if token.last_used is None or now - token.last_used >= LAST_USED_S:
            self._tokens[token.id] = replace(token, last_used=now)
            self._used[token.id] = now

    async def _hashed(self, password: str) -> str:
        check_password(password)
        async with self._hashing:
            return await asyncio.to_thread(hash_password, password, self._entropy)

    def _user(self, name: str) -> StoredUser:
        user = self._users.get(name)
        if user is None:
            raise OperatorError("not_found", f"There is no user {name}.", field="user")
        return user

    def _keep_user(self, user: StoredUser) -> None:
        self._users[user.name] = user
        if user.subject:
            self._identities[user.issuer, user.subject] = user.name

    def _keep_token(self, token: StoredToken) -> None:
        self._tokens[token.id] = token

    def _valid_tokens(self, name: str) -> Iterator[StoredToken]:
        return (one for one in self._tokens.values() if one.user == name and self._valid(one))

    def _user_view(self, user: StoredUser) -> UserView:
        return UserView(
            name=user.name,
            role=user.role,
            source=user.source,
            disabled=user.disabled,
            has_password=bool(user.password),
            created_at=user.created_at,
            tokens=sum(1 for _ in self._valid_tokens(user.name)),
        )

    def _token_view(self, token: StoredToken) -> TokenView:
        return TokenView(
            id=token.id,
            user=token.user,
            role=lower_role(token.role, self._user(token.user).role),
            note=token.note,
            created_at=token.created_at,
            expires_at=token.expires_at,
            revoked_at=token.revoked_at,
            last_used=token.last_used,
        )
