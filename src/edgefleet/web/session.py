"""Sessions of the page: a cookie that proves the operator token and does not contain it."""

import hashlib
import hmac

from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.web.limits import SESSION_S


class Sessions:
    """Opens and checks sessions. Stores none, so sessions survive a restart of the hub.

    A session is ``expires.nonce.mac``, with HMAC-SHA256 under the operator token: a new token
    ends all sessions.
    """

    def __init__(self, operator_token: str, clock: Clock, entropy: Entropy) -> None:
        self._token = operator_token
        self._clock = clock
        self._entropy = entropy
        # Browsers share cookies between the ports of a host, so each hub has its own cookie name.
        self.cookie = f"edgefleet_{self._mac('cookie')[:8]}"

    def open(self, token: str) -> str | None:
        """A new session if ``token`` is the operator token. None for any other token."""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        head = f"{int(self._clock.now()) + SESSION_S}.{self._entropy.token(16).hex()}"
        return f"{head}.{self._mac('session', head)}"

    def valid(self, session: str) -> bool:
        """True if this hub opened the session and it has not expired."""
        head, _, mac = session.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac("session", head).encode()):
            return False
        return self._clock.now() < int(head.partition(".")[0])

    def form_token(self, session: str) -> str:
        """The CSRF token that each form of this session must carry.

        Each call masks it with other random bytes: pages are compressed, and the size of a page
        that repeats a part of its address would otherwise reveal the token (BREACH).
        """
        mac = bytes.fromhex(self._mac("form", session))
        mask = self._entropy.token(len(mac))
        return mask.hex() + _xor(mask, mac).hex()

    def form_token_valid(self, session: str, form_token: str) -> bool:
        """True if ``form_token`` of the same session made the token, with any mask."""
        try:
            given = bytes.fromhex(form_token)
        except ValueError:
            return False
        half = len(given) // 2
        mac = _xor(given[:half], given[half:])
        return hmac.compare_digest(mac.hex(), self._mac("form", session))

    def _mac(self, purpose: str, about: str = "") -> str:
        text = f"edgefleet.web.{purpose}:{about}"
        return hmac.new(self._token.encode(), text.encode(), hashlib.sha256).hexdigest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=False))
