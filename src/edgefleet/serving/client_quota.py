"""The quota of a client: a token bucket for each address."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.base.token_buckets import TokenBuckets

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
        self._clock = clock
        self._buckets = TokenBuckets(rate, burst or rate, CLIENTS)

    @property
    def clients(self) -> int:
        """The addresses that are remembered."""
        return len(self._buckets)

    def consume(self, peer: str) -> None:
        """Count a request. Raises OverQuota, which says when the next one is allowed."""
        if not self.rate:
            return
        pause_s = self._buckets.consume(peer, self._clock())
        if pause_s:
            self.refused[OverQuota.reason] += 1
            raise OverQuota(peer, self.rate, pause_s)
