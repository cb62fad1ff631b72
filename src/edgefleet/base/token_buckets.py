"""Token buckets: each key may do so many things a second, and some of them at once."""

from collections import OrderedDict


class TokenBuckets:
    """``rate`` tokens a second for each key, and at most ``burst`` of them at once.

    Of more than ``keys`` keys the one that asked longest ago is forgotten.
    """

    def __init__(self, rate: float, burst: float, keys: int) -> None:
        self._rate = rate
        self._burst = burst
        self._keys = keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    def __len__(self) -> int:
        """The keys that are remembered."""
        return len(self._buckets)

    def consume(self, key: str, now: float) -> float:
        """Consume a token at ``now``, in seconds by a monotonic clock.

        Returns 0, or without a token the seconds until the next one.
        """
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        taken = tokens >= 1
        self._buckets[key] = tokens - taken, now
        if len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - tokens) / self._rate
