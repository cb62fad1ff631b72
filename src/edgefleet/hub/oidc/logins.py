"""Logins to the page with the provider: the button, and the provider's answer."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from urllib.parse import urlencode

from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.hub.oidc.claims import Expected, Identity, identify, no_role, read_claims, role_of
from edgefleet.hub.oidc.keys import refused
from edgefleet.hub.oidc.limits import CODE_CHARS, LOGIN_S
from edgefleet.hub.oidc.pending import Pending, PendingLogins
from edgefleet.hub.oidc.provider import Provider
from edgefleet.hub.oidc.settings import OidcSettings
from edgefleet.protocol.people import Role

Enter = Callable[[Identity, Role, str], Awaitable[str]]
"""Opens a session for a person with a role, from an address. Returns its secret."""


class OidcLogins:
    """``without_role`` ends the sessions of a person to whom the provider gives no role any more.

    ``attempt`` counts a login from an address if it fails, and refuses one after too many.
    """

    cookie_s = LOGIN_S

    def __init__(
        self,
        settings: OidcSettings,
        clock: Clock,
        entropy: Entropy,
        *,
        cookie: str,
        enter: Enter,
        without_role: Callable[[Identity], Awaitable[None]],
        attempt: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.cookie = f"{cookie}_oidc"
        self.issuer = settings.issuer
        self.is_https = settings.is_https
        self._settings = settings
        self._clock = clock
        self._provider = Provider(settings, clock)
        self._pending = PendingLogins(clock, entropy)
        self._enter = enter
        self._without_role = without_role
        self._attempt = attempt

    async def begin(self, next_: str) -> tuple[str, str]:
        """The address at the provider, and the cookie of the login.

        Raises NetworkError ``oidc_unavailable``.
        """
        addresses = await self._provider.addresses()
        pending, cookie = self._pending.begin(next_)
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._settings.redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": pending.challenge,
            "code_challenge_method": "S256",
        }
        place = addresses.authorization_endpoint
        return f"{place}{'&' if '?' in place else '?'}{urlencode(query)}", cookie

    async def finish(self, query: Mapping[str, str], cookie: str, address: str) -> tuple[str, str]:
        """Open a session for the person that the provider names. Returns its secret and ``next``.

        Raises OperatorError ``oidc_refused``, ``oidc_no_role``, ``unauthenticated`` or
        ``too_many_logins``, NetworkError ``oidc_unavailable``.
        """
        # Not counted: another site can send a browser here, and would use up its attempts.
        pending = self._pending.use(cookie, query.get("state", ""))
        with self._attempt(address):
            identity = await self._identity(query, pending)
            role = role_of(identity.groups, self._settings.roles)
            if role is None:
                await self._without_role(identity)
                raise no_role(identity, self._settings.groups_claim)
            return await self._enter(identity, role, address), pending.next

    async def _identity(self, query: Mapping[str, str], pending: Pending) -> Identity:
        addresses = await self._provider.addresses()
        announced = addresses.authorization_response_iss_parameter_supported  # RFC 9207
        if (announced or "iss" in query) and query.get("iss") != self._settings.issuer:
            raise refused("The answer is of another provider.")
        if "error" in query:
            shown = query["error"][:80]
            raise refused(f"The provider did not log you in ({shown}).")
        code = query.get("code", "")
        if not 0 < len(code) <= CODE_CHARS:
            raise refused("The provider's answer has no code.")
        token = await self._provider.id_token(code, pending.verifier)
        claims = read_claims(await self._provider.payload(token))
        expected = Expected(
            self._settings.issuer, self._settings.client_id, pending.nonce, pending.began_at
        )
        return identify(
            claims,
            expected,
            groups_claim=self._settings.groups_claim,
            now=self._clock.now(),
        )
