"""Pace: starts a minute, counted exactly; bytes a second, by a bucket that fills as time goes."""

from bisect import bisect_right
from collections.abc import Callable

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import PaceSpec

MINUTE_S = 60.0


def check_pace(pace: PaceSpec) -> None:
    """Raises OperatorError ``pace_invalid``."""
    for name in ("starts_per_minute", "bytes_per_s", "bytes_per_s_per_site"):
        value: int = getattr(pace, name)
        if value < 0:
            raise OperatorError("pace_invalid", f"{value} is below 0.", field=f"pace.{name}")


class StartRate:
    """When devices began, of the last minute: at most ``most`` in any 60 s (0 is no bound)."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._at: list[float] = []  # ascending

    def add(self, at: float, count: int = 1) -> None:
        if self.most:
            place = bisect_right(self._at, at)
            self._at[place:place] = [at] * count

    def remove(self, at: float) -> None:
        """It did not begin after all."""
        place = bisect_right(self._at, at) - 1
        if place >= 0 and self._at[place] == at:
            del self._at[place]

    def room(self, now: float) -> int | None:
        """How many may begin now; None: any number."""
        if not self.most:
            return None
        del self._at[: bisect_right(self._at, now - MINUTE_S)]
        return max(0, self.most - len(self._at))

    def wait_until(self, now: float) -> float | None:
        """When the next may begin; None: now. A clock set back counts as no time."""
        if self.room(now) != 0:
            return None
        return self._at[-self.most] + MINUTE_S


class TokenBucket:
    """Bytes that may be offered: ``per_s`` flow in, what is offered flows out at once.

    It holds ten seconds' worth, and something larger may leave when it is full: then it owes, and
    nothing more leaves before that has flowed in.
    """

    HOLDS_S = 10.0

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._bytes = 0.0
        self._at: float | None = None

    def ready_at(self, size_bytes: int, now: float) -> float:
        """When so many bytes may leave: now, or later."""
        self._fill(now)
        short = min(float(size_bytes), self._per_s * self.HOLDS_S) - self._bytes
        return now + max(0.0, short / self._per_s)

    def take(self, size_bytes: int, now: float) -> None:
        self._fill(now)
        self._bytes -= size_bytes

    def _fill(self, now: float) -> None:
        most = self._per_s * self.HOLDS_S
        if self._at is None:
            self._bytes = most
        else:
            self._bytes = min(most, self._bytes + max(0.0, now - self._at) * self._per_s)
        self._at = now


class ByteRate:
    """The bytes that one rollout may offer. Soft: after a restart the buckets are full again.

    What all rollouts offer leaves the buckets of each, whether it has a bound of its own or not.
    """

    def __init__(self, pace: PaceSpec) -> None:
        self._pace = pace
        self._all = TokenBucket(pace.bytes_per_s) if pace.bytes_per_s else None
        self._sites: dict[str, TokenBucket] = {}
        self._offered: set[int] = set()  # rows whose bytes have left

    @property
    def is_bounded(self) -> bool:
        return bool(self._pace.bytes_per_s or self._pace.bytes_per_s_per_site)

    def wait_until(
        self, row: int, site: str | None, size_bytes: Callable[[], int], now: float
    ) -> float | None:
        """When the device may be offered its bytes; None: now, or they have left already."""
        if not self.is_bounded or row in self._offered:
            return None
        at = max(bucket.ready_at(size_bytes(), now) for bucket in self._buckets(site))
        return at if at > now else None

    def busy_until(self, now: float) -> float | None:
        """When bytes flow again, where no site stands in the way; None: they do."""
        at = now if self._all is None else self._all.ready_at(1, now)
        return at if at > now else None

    def begins(self, row: int) -> bool:
        """Take down that this rollout offers the device its bytes; False when it did before."""
        before = len(self._offered)
        self._offered.add(row)
        return len(self._offered) > before

    def take(self, site: str | None, size_bytes: int, now: float) -> None:
        """So many bytes are offered at the site, by whichever rollout."""
        for bucket in self._buckets(site):
            bucket.take(size_bytes, now)

    def _buckets(self, site: str | None) -> tuple[TokenBucket, ...]:
        found = () if self._all is None else (self._all,)
        per_site = self._pace.bytes_per_s_per_site
        if not per_site:
            return found
        name = "" if site is None else site
        if name not in self._sites:
            self._sites[name] = TokenBucket(per_site)
        return (*found, self._sites[name])
