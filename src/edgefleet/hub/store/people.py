"""Users, API tokens and sessions in the store: their records, their writes, and their queries."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.people import Role

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


@dataclass(frozen=True, slots=True)
class StoredUser:
    name: str
    role: Role
    source: str
    password: str  # as ``security.passwords`` stores it; empty: none
    disabled: bool
    created_at: float
    issuer: str = ""  # with ``subject`` the person at the provider. Empty: a user of this hub
    subject: str = ""


@dataclass(frozen=True, slots=True)
class StoredToken:
    id: str
    user: str
    digest: str
    role: Role
    note: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None = None
    last_used: float | None = None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """``proof``: the id of the API token, or the digest of the operator token. Else empty."""

    digest: str
    user: str
    role: Role
    way: str
    proof: str
    expires_at: float


def add_user(user: StoredUser) -> Job[StoredUser]:
    """The job raises OperatorError ``user_exists``."""

    def job(connection: sqlite3.Connection) -> StoredUser:
        if connection.execute("SELECT 1 FROM user WHERE name = ?", (user.name,)).fetchone():
            raise OperatorError("user_exists", f"There is a user {user.name}.", field="name")
        connection.execute(
            "INSERT INTO user (name, role, source, password, disabled, created_at, issuer, subject)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                user.name,
                user.role.value,
                user.source,
                user.password,
                user.disabled,
                user.created_at,
                user.issuer,
                user.subject,
            ),
        )
        return user

    return job


def save_user(user: StoredUser, *, end_sessions: bool) -> Job[StoredUser]:
    """Replace the user's role, password and state."""

    def job(connection: sqlite3.Connection) -> StoredUser:
        connection.execute(
            "UPDATE user SET role = ?, password = ?, disabled = ? WHERE name = ?",
            (user.role.value, user.password, user.disabled, user.name),
        )
        if end_sessions:
            connection.execute("DELETE FROM session WHERE user = ?", (user.name,))
        return user

    return job


def add_token(token: StoredToken, *, forget_before: float) -> Job[StoredToken]:
    """Store a token, and remove those that ended before ``forget_before``."""

    def job(connection: sqlite3.Connection) -> StoredToken:
        connection.execute(
            "DELETE FROM api_token WHERE coalesce(revoked_at, expires_at) < ?", (forget_before,)
        )
        connection.execute(
            "INSERT INTO api_token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                token.id,
                token.user,
                token.digest,
                token.role.value,
                token.note,
                token.created_at,
                token.expires_at,
                token.revoked_at,
                token.last_used,
            ),
        )
        return token

    return job


def revoke_token(token: StoredToken) -> Job[StoredToken]:
    def job(connection: sqlite3.Connection) -> StoredToken:
        connection.execute(
            "UPDATE api_token SET revoked_at = ? WHERE id = ?", (token.revoked_at, token.id)
        )
        return token

    return job


def save_last_used(used: Mapping[str, float]) -> Job[None]:
    """``used``: seconds since 1970, by the id of the token."""

    def job(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "UPDATE api_token SET last_used = ? WHERE id = ?",
            [(at, id_) for id_, at in used.items()],
        )

    return job


def add_session(session: StoredSession, now: float) -> Job[None]:
    """Store a session, and remove those that have expired."""

    def job(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM session WHERE expires_at <= ?", (now,))
        connection.execute(
            "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?)",
            (
                session.digest,
                session.user,
                session.role.value,
                session.way,
                session.proof,
                session.expires_at,
            ),
        )

    return job


def end_session(digest: str) -> Job[None]:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM session WHERE digest = ?", (digest,))

    return job


class PeopleReader:
    """The state to restore at the start of the hub."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def users(self) -> Iterator[StoredUser]:
        for name, role, source, password, disabled, *rest in self._connection.execute(
            "SELECT name, role, source, password, disabled, created_at, issuer, subject FROM user"
            " ORDER BY name"
        ):
            yield StoredUser(name, Role(role), source, password, bool(disabled), *rest)

    def tokens(self, since: float) -> Iterator[StoredToken]:
        """The tokens that are valid or ended after ``since``, oldest first."""
        for id_, user, digest, role, note, *times in self._connection.execute(
            "SELECT id, user, digest, role, note, created_at, expires_at, revoked_at, last_used"
            " FROM api_token WHERE coalesce(revoked_at, expires_at, ?1) >= ?1"
            " ORDER BY created_at, id",
            (since,),
        ):
            yield StoredToken(id_, user, digest, Role(role), note, *times)

    def sessions(self, now: float) -> Iterator[StoredSession]:
        """Those that have not expired."""
        for digest, user, role, way, proof, expires_at in self._connection.execute(
            "SELECT digest, user, role, way, proof, expires_at FROM session WHERE expires_at > ?",
            (now,),
        ):
            yield StoredSession(digest, user, Role(role), way, proof, expires_at)
