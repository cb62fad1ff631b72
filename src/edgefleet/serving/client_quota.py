"""The quota of a client: a token bucket for each address."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from edgefleet.base.errors import OperatorError

CLIENTS: Final = 4_096  # addresses that are remembered; the one that asked longest ago goes first


class OverQuota(OperatorError):  # noqa: N818 - the request is refused; nothing failed
    """A client has used up its quota."""

    reason = "client_quota"

    def __init__(self, peer: str, rate: int, retry_after_s: float) -> None:
        super().__init__("over_quota", f"The quota of {peer} is {rate} requests a second.")
        self.retry_after_s = retry_after_s


class ClientQuota:
    """``rate`` requests a second for each address, ``burst`` of them at once. 0 is no quota.

    ``refused`` counts the refusals by their reason.
    """

    def __init__(
        self, rate: int, burst: int = 0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.refused: Counter[str] = Counter()
        self._burst = float(burst or rate)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    @property
    def clients(self) -> int:
        """The addresses that are remembered."""
        return len(self._buckets)

    def consume(self, peer: str) -> None:
        """Count a request. Raises OverQuota, which says when the next one is allowed."""
        if not self.rate:
            return
        now = self._clock()
        tokens, at = self._buckets.pop(peer, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self.rate)
        taken = tokens >= 1
        self._buckets[peer] = tokens - taken, now
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        if not taken:
            self.refused[OverQuota.reason] += 1
            raise OverQuota(peer, self.rate, (1 - tokens) / self.rate)
