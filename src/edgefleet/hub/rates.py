"""Rates of requests to the operator API: a token bucket for each principal.

Requests without a valid credential have one for each address, and only they: whoever has a valid
credential is never refused because of others behind the same address.
"""

from edgefleet.base.clock import Clock
from edgefleet.base.errors import OperatorError
from edgefleet.base.token_buckets import TokenBuckets
from edgefleet.hub.limits import BUCKETS, BURST_S, UNAUTHENTICATED_PER_S


class TooManyRequests(OperatorError):  # noqa: N818 - as ``Overloaded``
    """``too_many_requests``, with the pause."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__("too_many_requests", message)
        self.retry_after_s = retry_after_s


class Rate:
    """Each key may do ``per_s`` a second, and ``BURST_S`` seconds' worth of it at once."""

    def __init__(self, clock: Clock, per_s: float) -> None:
        self._clock = clock
        self._per_s = per_s
        self._buckets = TokenBuckets(per_s, max(1.0, per_s * BURST_S), BUCKETS)

    def consume(self, key: str, who: str) -> None:
        """Consume one token. Raises ``TooManyRequests``, in which ``who`` is above the rate."""
        pause_s = self._buckets.consume(key, self._clock.monotonic())
        if pause_s:
            raise TooManyRequests(
                f"{who} made more than {self._per_s:g} requests a second.", pause_s
            )


class RequestRates:
    def __init__(self, clock: Clock, per_s: float) -> None:
        """``per_s`` is the rate of each user, and of the holder of the operator token."""
        self._known = Rate(clock, per_s)
        self._unknown = Rate(clock, UNAUTHENTICATED_PER_S)

    def consume(self, name: str) -> None:
        """Count a request of a principal. Raises ``TooManyRequests``."""
        self._known.consume(name, name)

    def failed(self, address: str) -> None:
        """Count a request without a valid credential. Raises ``TooManyRequests``."""
        self._unknown.consume(address, f"Clients without a valid token at {address}")
