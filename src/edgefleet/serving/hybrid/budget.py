"""The budget of forwarded requests: a share of all requests, requests a minute, bytes a day.

Pure: the caller gives the time, in seconds of a clock that does not go back.
"""

from collections import deque
from typing import Final, Literal

from edgefleet.protocol.fallback import BudgetLimits
from edgefleet.serving.limits import FALLBACK_BURST

Spent = Literal["budget_share", "budget_minute", "budget_bytes"]
"""The limit that a further request would exceed."""

_MINUTE_S: Final = 60.0
_DAY_S: Final = 86_400.0
_SLOTS: Final = 60  # of a window; a count is forgotten up to one slot late, never early


class Window:
    """The sum of the counts of the last ``span_s`` seconds, in SLOTS slots."""

    def __init__(self, span_s: float) -> None:
        self._slot_s = span_s / _SLOTS
        self._slots: deque[tuple[int, int]] = deque()  # number of the slot, count
        self._total = 0

    def total(self, now: float) -> int:
        """The sum at the time ``now``."""
        first = int(now // self._slot_s) - _SLOTS
        while self._slots and self._slots[0][0] < first:
            self._total -= self._slots.popleft()[1]
        return self._total

    def add(self, now: float, count: int) -> None:
        self.total(now)
        slot = int(now // self._slot_s)
        if self._slots and self._slots[-1][0] == slot:
            count_before = self._slots.pop()[1]
            self._slots.append((slot, count_before + count))
        else:
            self._slots.append((slot, count))
        self._total += count


class Budget:
    """Counts the requests of clients, and those that are forwarded.

    The share is a token bucket: each request of a client adds ``share`` of a token, a forwarded
    request uses one, and at most FALLBACK_BURST tokens are kept. The bucket begins full: of N
    requests at most ``share`` * N + FALLBACK_BURST are forwarded. With the share 1 each may be.
    """

    def __init__(self, limits: BudgetLimits) -> None:
        self._limits = limits
        self._tokens = float(FALLBACK_BURST)
        self._minute = Window(_MINUTE_S)
        self._day = Window(_DAY_S)

    def came(self) -> None:
        """Count a request of a client."""
        self._tokens = min(float(FALLBACK_BURST), self._tokens + self._limits.share)

    def spent(self, now: float, size_bytes: int) -> Spent | None:
        """The limit that a request of ``size_bytes`` would exceed. None if it may be forwarded."""
        if self._limits.share < 1 and self._tokens < 1:
            return "budget_share"
        if self._minute.total(now) >= self._limits.per_minute:
            return "budget_minute"
        if self._day.total(now) + size_bytes > self._limits.bytes_per_day:
            return "budget_bytes"
        return None

    def use(self, now: float, size_bytes: int) -> None:
        """Count a forwarded request and its bytes."""
        self._tokens = max(0.0, self._tokens - 1)
        self._minute.add(now, 1)
        self._day.add(now, size_bytes)

    def receive(self, now: float, size_bytes: int) -> bool:
        """Count bytes of an answer. False if no further ones may be read."""
        self._day.add(now, size_bytes)
        return self._day.total(now) <= self._limits.bytes_per_day
