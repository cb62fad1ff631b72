"""Logins to the page: by password, token, one-use link or provider. A login opens a session.

A session is a random secret in a cookie. The hub stores its digest, and checks at each request that
the user, and the token of the login, are still valid.
"""

from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError, Overloaded
from edgefleet.hub.actors import line_by
from edgefleet.hub.failed_logins import FailedLogins
from edgefleet.hub.limits import (
    HASHES_WAITING,
    LOGIN_LINK_S,
    LOGIN_LINKS,
    SESSION_S,
    SESSIONS,
)
from edgefleet.hub.login_attempts import LoginAttempts
from edgefleet.hub.people import People
from edgefleet.hub.store import people as writes
from edgefleet.hub.store.people import StoredSession
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.people import OPERATOR, LoginLink, Role
from edgefleet.security.api_tokens import PREFIX, new_secret
from edgefleet.security.credentials import same_token, token_digest
from edgefleet.security.principals import OPERATOR_TOKEN, Principal

if TYPE_CHECKING:
    from edgefleet.hub.oidc.claims import Identity
    from edgefleet.hub.oidc.logins import OidcLogins
    from edgefleet.hub.oidc.settings import OidcSettings

_WRONG: Final = "The name, or the password or token, is wrong."


class Logins:
    """``provider`` is None without settings for one."""

    def __init__(
        self,
        store: SqliteStore,
        people: People,
        clock: Clock,
        entropy: Entropy,
        *,
        operator_token: str,
        oidc: "OidcSettings | None" = None,
    ) -> None:
        self._store = store
        self._people = people
        self._clock = clock
        self._entropy = entropy
        self._operator_token = operator_token
        self._operator_proof = token_digest(operator_token)
        self._attempts = LoginAttempts(clock)
        self._failed = FailedLogins(store, clock, people.is_user)
        self._sessions: OrderedDict[str, StoredSession] = OrderedDict()
        self._links: OrderedDict[str, tuple[Principal, float]] = OrderedDict()
        self._checking = 0  # passwords
        # Browsers share cookies between the ports of a host, so each hub has its own cookie name.
        self.cookie = f"edgefleet_{token_digest(f'cookie:{operator_token}')[:8]}"
        self.session_s = SESSION_S
        self.provider = None if oidc is None else self._with_provider(oidc)
        people.ended = self._end_all

    def load(self) -> None:
        """Restore the sessions from the store."""
        for session in self._store.reader.people.sessions(self._clock.now()):
            self._sessions[session.digest] = session

    def principal(self, session: str, address: str) -> Principal | None:
        """The principal of a session. None if it is not valid any more."""
        found = self._sessions.get(token_digest(session)) if session else None
        if found is None or found.expires_at <= self._clock.now():
            return None
        if found.user == OPERATOR:
            if not same_token(found.proof, self._operator_proof):
                return None
            return replace(OPERATOR_TOKEN, way=found.way, address=address)
        if found.proof and not self._people.token_is_valid(found.proof):
            return None
        try:
            return self._people.principal(found.user, found.role, found.way, address, found.proof)
        except OperatorError:
            return None

    async def enter(self, name: str, secret: str, address: str) -> str:
        """Open a session with a password, an API token or the operator token. Returns its secret.

        Raises OperatorError ``unauthenticated`` or ``too_many_logins``, DeviceError ``overloaded``.
        """
        with self._attempt("password", name, address):
            try:
                by = await self._identify(name, secret, address)
            except OperatorError as error:
                raise OperatorError("unauthenticated", _WRONG, hint=error.hint) from error
        return await self.open(by)

    async def enter_by_link(self, code: str, address: str) -> str:
        """Open a session with the code of a link, which is then used. Returns its secret.

        Raises OperatorError ``unauthenticated``.
        """
        by, expires_at = self._links.pop(token_digest(code), (OPERATOR_TOKEN, 0.0))
        if expires_at <= self._clock.now() or not self._still_valid(by):
            self._failed.note("link", "", address)
            raise OperatorError(
                "unauthenticated",
                "The link has been used, or has expired.",
                hint="Make another one with `edgefleet hub login`.",
            )
        way = "session (link)" if by.is_operator_token else f"session (link, {by.way})"
        return await self.open(replace(by, way=way, address=address))

    def link(self, by: Principal) -> LoginLink:
        """A link that opens the page once, for the same principal."""
        code = new_secret(self._entropy)
        expires_at = self._clock.now() + LOGIN_LINK_S
        self._links[token_digest(code)] = (by, expires_at)
        while len(self._links) > LOGIN_LINKS:
            self._links.popitem(last=False)
        return LoginLink(path=f"/login?code={code}", expires_at=expires_at)

    async def open(self, by: Principal) -> str:
        """Open a session for ``by``, whose way it keeps. Returns its secret."""
        secret, now = new_secret(self._entropy), self._clock.now()
        proof = self._operator_proof if by.is_operator_token else by.token
        session = StoredSession(
            token_digest(secret), by.name, by.role, by.way, proof, now + SESSION_S
        )
        self._sessions[session.digest] = session
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        with suppress(DeviceError):  # a full disk: the session lasts until the hub's next start
            await self._store.change(
                writes.add_session(session, now),
                [line_by(by, "login", f"user/{by.name}")],
                now,
                lambda _none: None,
            )
        return secret

    async def log_out(self, session: str) -> None:
        """End a session."""
        digest = token_digest(session)
        if self._sessions.pop(digest, None) is not None:
            await self._store.writer.submit(writes.end_session(digest))

    async def flush(self) -> None:
        """Store what is not stored yet about failed logins. Raises DeviceError."""
        await self._failed.flush()

    @contextmanager
    def _attempt(self, way: str, name: str, address: str) -> Generator[None]:
        """Count a login if it fails. Raises ``TooManyLogins`` after too many.

        A login that the hub or the provider could not check is not counted.
        """
        try:
            self._attempts.begin(name, address)
        except OperatorError:
            self._failed.note(way, name, address)
            raise
        try:
            yield
        except OperatorError:
            self._failed.note(way, name, address)
            raise
        except EdgefleetError:
            self._attempts.succeeded(name, address)
            raise
        self._attempts.succeeded(name, address)

    # The provider.

    def _with_provider(self, settings: "OidcSettings") -> "OidcLogins":
        from edgefleet.hub.oidc.logins import OidcLogins  # noqa: PLC0415 - not every hub has one

        return OidcLogins(
            settings,
            self._clock,
            self._entropy,
            cookie=self.cookie,
            enter=self._enter_from_provider,
            without_role=self._end_provider_sessions,
            attempt=lambda address: self._attempt("provider", "", address),
        )

    async def _enter_from_provider(self, identity: "Identity", role: Role, address: str) -> str:
        """Open a session. Raises OperatorError ``unauthenticated`` for a disabled user."""
        return await self.open(
            await self._people.enter_from_provider(
                (identity.issuer, identity.subject),
                identity.name,
                role,
                "session (provider)",
                address,
            )
        )

    async def _end_provider_sessions(self, identity: "Identity") -> None:
        """End the sessions of a person who has no role any more."""
        key = identity.issuer, identity.subject
        name = self._people.name_of(key)
        if name and any(session.user == name for session in self._sessions.values()):
            await self._people.end_sessions(name)

    async def _identify(self, name: str, secret: str, address: str) -> Principal:
        """Raises OperatorError ``unauthenticated``, DeviceError ``overloaded``."""
        if name == OPERATOR or secret.startswith(PREFIX):
            by = self._people.by_token(secret, address)
            kind = "operator token" if by.is_operator_token else by.way
            return replace(by, way=f"session ({kind})")
        if self._checking >= HASHES_WAITING:
            raise Overloaded("queue_full", "Too many logins at the same time.")
        self._checking += 1
        try:
            right = await self._people.password_is_right(name, secret)
        finally:
            self._checking -= 1
        if not right:
            raise OperatorError("unauthenticated", _WRONG)
        role = self._people.role_of(name)
        return self._people.principal(name, role, "session (password)", address)

    def _still_valid(self, by: Principal) -> bool:
        if by.is_operator_token:
            return True
        if by.token and not self._people.token_is_valid(by.token):
            return False
        try:
            self._people.principal(by.name, by.role, by.way, by.address)
        except OperatorError:
            return False
        return True

    def _end_all(self, user: str) -> None:
        """End the sessions and links of a user. The store has ended the sessions already."""
        for digest, session in list(self._sessions.items()):
            if session.user == user:
                del self._sessions[digest]
        for digest, (by, _) in list(self._links.items()):
            if by.name == user:
                del self._links[digest]
