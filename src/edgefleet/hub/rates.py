"""Rates of requests to the operator API: a token bucket for each principal.

Requests without a valid credential have one for each address, and only they: whoever has a valid
credential is never refused because of others behind the same address.
"""

from collections import OrderedDict
from dataclasses import dataclass

from edgefleet.base.clock import Clock
from edgefleet.base.errors import OperatorError
from edgefleet.hub.limits import BUCKETS, BURST_S, UNAUTHENTICATED_PER_S


class TooManyRequests(OperatorError):  # noqa: N818 - as ``Overloaded``
    """``too_many_requests``, with the pause."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__("too_many_requests", message)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class TokenBuckets:
    """Each key may do ``per_s`` a second, and ``BURST_S`` seconds' worth of it at once."""

    def __init__(self, clock: Clock, per_s: float) -> None:
        self._clock = clock
        self._per_s = per_s
        self._most = max(1.0, per_s * BURST_S)
        self._by_key: OrderedDict[str, _Bucket] = OrderedDict()

    def consume(self, key: str, who: str) -> None:
        """Consume one token. Raises ``TooManyRequests``, in which ``who`` is above the rate."""
        now = self._clock.monotonic()
        bucket = self._by_key.get(key)
        if bucket is None:
            bucket = self._by_key[key] = _Bucket(self._most, now)
            if len(self._by_key) > BUCKETS:
                self._by_key.popitem(last=False)  # the one that was used longest ago
        self._by_key.move_to_end(key)
        bucket.tokens = min(self._most, bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
        if bucket.tokens < 1:
            raise TooManyRequests(
                f"{who} made more than {self._per_s:g} requests a second.",
                (1 - bucket.tokens) / self._per_s,
            )
        bucket.tokens -= 1


class RequestRates:
    def __init__(self, clock: Clock, per_s: float) -> None:
        """``per_s`` is the rate of each user, and of the holder of the operator token."""
        self._known = TokenBuckets(clock, per_s)
        self._unknown = TokenBuckets(clock, UNAUTHENTICATED_PER_S)

    def consume(self, name: str) -> None:
        """Count a request of a principal. Raises ``TooManyRequests``."""
        self._known.consume(name, name)

    def failed(self, address: str) -> None:
        """Count a request without a valid credential. Raises ``TooManyRequests``."""
        self._unknown.consume(address, f"Clients without a valid token at {address}")
