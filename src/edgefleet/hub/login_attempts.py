"""Limits on failed logins: by user and by address, each within a pause.

An attempt is counted when it begins, so that attempts at the same time do not pass together. A
login that succeeds takes back its own attempt, and only that one.
"""

from collections import OrderedDict, deque

from edgefleet.base.clock import Clock
from edgefleet.base.errors import OperatorError
from edgefleet.hub.limits import (
    LOGIN_PAUSE_S,
    LOGINS_COUNTED,
    LOGINS_OF_ADDRESS,
    LOGINS_OF_USER,
)


class TooManyLogins(OperatorError):  # noqa: N818 - as ``Overloaded``
    """``too_many_logins``, with the pause."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too_many_logins", "Too many logins failed. Wait before the next one.")
        self.retry_after_s = retry_after_s


class LoginAttempts:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_key: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def begin(self, user: str, address: str) -> None:
        """Count an attempt. Without ``user`` for the address alone. Raises ``TooManyLogins``."""
        now = self._clock.monotonic()
        for key, most in self._keys(user, address):
            failed = self._by_key.setdefault(key, deque())
            self._by_key.move_to_end(key)
            while failed and failed[0] <= now - LOGIN_PAUSE_S:
                failed.popleft()
            if len(failed) >= most:
                raise TooManyLogins(failed[0] + LOGIN_PAUSE_S - now)
        for key, _ in self._keys(user, address):
            self._by_key[key].append(now)
        while len(self._by_key) > LOGINS_COUNTED:
            self._by_key.popitem(last=False)

    def succeeded(self, user: str, address: str) -> None:
        """Take back the newest attempt of this user from this address."""
        for key, _ in self._keys(user, address):
            if failed := self._by_key.get(key):
                failed.pop()

    @staticmethod
    def _keys(user: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
        of_address = ("address", address), LOGINS_OF_ADDRESS
        return ((("user", user), LOGINS_OF_USER), of_address) if user else (of_address,)
