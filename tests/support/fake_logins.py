"""Logins of a fake hub: the operator token, users with a password, and links that work once."""

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.people import Role
from edgefleet.security.principals import OPERATOR_TOKEN, Principal

TOKEN = "operator-token-of-the-fake"


class FakeLogins:
    """``users`` are principals by (name, password). ``sessions`` may be ended by a test."""

    cookie = "edgefleet_fake"
    session_s = 3600.0
    provider = None

    def __init__(self) -> None:
        self.users = {("operator", TOKEN): OPERATOR_TOKEN}
        self.links = {"once": OPERATOR_TOKEN}
        self.sessions: dict[str, Principal] = {}
        self.refusal: OperatorError | None = None

    def add(self, name: str, role: Role) -> None:
        """A user whose password is the name."""
        self.users[name, name] = Principal(name, role, "session (password)")

    def principal(self, session: str, address: str) -> Principal | None:
        del address
        return self.sessions.get(session)

    async def enter(self, name: str, secret: str, address: str) -> str:
        del address
        if self.refusal is not None:
            raise self.refusal
        return self._open(self.users.get((name, secret)))

    async def enter_by_link(self, code: str, address: str) -> str:
        del address
        return self._open(self.links.pop(code, None))

    async def log_out(self, session: str) -> None:
        del self.sessions[session]

    def _open(self, by: Principal | None) -> str:
        if by is None:
            raise OperatorError("unauthenticated", "The name or the password is wrong.")
        session = f"session-{len(self.sessions)}"
        self.sessions[session] = by
        return session
