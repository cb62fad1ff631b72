"""Logins that have begun: a signed cookie of the browser holds each, and the hub nothing.

State, nonce and PKCE verifier are made from the secret in the cookie with a key of this process. So
an answer of the provider is accepted from the browser alone that began the login, once, and until
``LOGIN_S``. A restart of the hub ends the logins in progress.
"""

import hmac
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec

from edgefleet.base.base64url import from_base64url, to_base64url
from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.hub.oidc.keys import refused
from edgefleet.hub.oidc.limits import LOGIN_S, LOGINS_USED, NEXT_CHARS
from edgefleet.security.api_tokens import new_secret

_AGAIN: Final = "The login was not begun in this browser, or has ended."
COOKIE_CHARS: Final = 2 * NEXT_CHARS + 512


class _Cookie(msgspec.Struct, frozen=True):
    secret: str
    next: str
    began_at: float


@dataclass(frozen=True, slots=True)
class Pending:
    """One login. ``next``: the page to open after it."""

    state: str
    nonce: str
    verifier: str
    next: str
    began_at: float

    @property
    def challenge(self) -> str:
        """S256 of RFC 7636."""
        return to_base64url(sha256(self.verifier.encode()).digest())


class PendingLogins:
    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._key = entropy.token(32)
        self._used: OrderedDict[str, float] = OrderedDict()

    def begin(self, next_: str) -> tuple[Pending, str]:
        """A new login, and its cookie."""
        shown = next_ if len(next_) <= NEXT_CHARS else "/"
        cookie = _Cookie(new_secret(self._entropy), shown, self._clock.now())
        body = to_base64url(msgspec.json.encode(cookie))
        return self._pending(cookie), f"{body}.{self._mac('cookie', body)}"

    def use(self, cookie: str, state: str) -> Pending:
        """The login of this cookie, which can then not be used again.

        Raises OperatorError ``oidc_refused``.
        """
        pending = self._pending(self._read(cookie))
        if not state.isascii() or not hmac.compare_digest(pending.state, state):
            raise refused(_AGAIN)
        now = self._clock.now()
        if not pending.began_at <= now < pending.began_at + LOGIN_S:
            raise refused("The login took too long.")
        while self._used and next(iter(self._used.values())) <= now - LOGIN_S:
            self._used.popitem(last=False)
        if state in self._used:
            raise refused(_AGAIN)
        if len(self._used) >= LOGINS_USED:
            raise refused("Too many people log in at the same time.")
        self._used[state] = now
        return pending

    def _read(self, cookie: str) -> _Cookie:
        body, _, mac = cookie.partition(".")
        known = len(cookie) <= COOKIE_CHARS and cookie.isascii()
        if not known or not hmac.compare_digest(self._mac("cookie", body), mac):
            raise refused(_AGAIN)
        return msgspec.json.decode(from_base64url(body), type=_Cookie)

    def _pending(self, cookie: _Cookie) -> Pending:
        state, nonce, verifier = (
            self._mac(use, cookie.secret) for use in ("state", "nonce", "verifier")
        )
        return Pending(state, nonce, verifier, cookie.next, cookie.began_at)

    def _mac(self, use: str, text: str) -> str:
        """43 characters. ``use`` keeps the values apart."""
        return to_base64url(hmac.digest(self._key, f"{use}:{text}".encode(), "sha256"))
