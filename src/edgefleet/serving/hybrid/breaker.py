"""The circuit breaker of the fallback. Pure: the caller gives the time in seconds.

Closed: each request may be forwarded. After FALLBACK_FAILURES failures in a row it is open: none
may. After a back-off it is half-open: one request tries. If that fails the back-off doubles, up to
FALLBACK_MOST_BACKOFF_S.
"""

from typing import Literal

from edgefleet.serving.limits import FALLBACK_BACKOFF_S, FALLBACK_FAILURES, FALLBACK_MOST_BACKOFF_S

State = Literal["closed", "open", "half_open"]


class Breaker:
    """A request that ``allows`` has admitted ends in ``succeeded``, ``failed`` or ``dropped``."""

    def __init__(self) -> None:
        self._failures = 0  # in a row
        self._backoff_s = 0.0  # 0 while closed
        self._opens_at = 0.0
        self._trying = False

    def state(self, now: float) -> State:
        if not self._backoff_s:
            return "closed"
        return "half_open" if now >= self._opens_at else "open"

    def allows(self, now: float) -> bool:
        """Whether a request may be forwarded. True reserves the one try of the half-open state."""
        match self.state(now):
            case "closed":
                return True
            case "open":
                return False
            case "half_open":
                if self._trying:
                    return False
                self._trying = True
                return True

    def succeeded(self) -> None:
        """The endpoint has answered, whatever it answered."""
        self._failures = 0
        self._backoff_s = 0.0
        self._trying = False

    def failed(self, now: float) -> None:
        """No answer, none in time, or none that can be read."""
        self._failures += 1
        is_open = bool(self._backoff_s)
        if is_open and not self._trying:
            return  # it was sent before the breaker opened
        self._trying = False
        if is_open:
            self._backoff_s = min(FALLBACK_MOST_BACKOFF_S, 2 * self._backoff_s)
        elif self._failures >= FALLBACK_FAILURES:
            self._backoff_s = FALLBACK_BACKOFF_S
        else:
            return
        self._opens_at = now + self._backoff_s

    def dropped(self) -> None:
        """The request was given up for another reason: it is no evidence."""
        self._trying = False
