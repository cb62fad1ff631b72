"""Rate limits: starts per minute (exact count) and bytes per second (token buckets)."""

from bisect import bisect_right
from collections.abc import Collection, Mapping

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import PaceSpec

MINUTE_S = 60.0


def check_pace(pace: PaceSpec) -> None:
    """Raises OperatorError ``pace_invalid``."""
    for name in ("starts_per_minute", "bytes_per_s", "bytes_per_s_per_site"):
        value: int = getattr(pace, name)
        if value < 0:
            raise OperatorError(
                "pace_invalid", f"The limit must be 0 or more, not {value}.", field=f"pace.{name}"
            )


class StartRate:
    """The starts of the last minute: at most ``most`` in any 60 s. 0 is no limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._at: list[float] = []  # ascending

    def add(self, at: float, count: int = 1) -> None:
        if self.most:
            place = bisect_right(self._at, at)
            self._at[place:place] = [at] * count

    def remove(self, at: float) -> None:
        """Remove one start at time ``at``: the device did not begin."""
        place = bisect_right(self._at, at) - 1
        if place >= 0 and self._at[place] == at:
            del self._at[place]

    def room(self, now: float) -> int | None:
        """How many devices may begin now. None if there is no limit."""
        if not self.most:
            return None
        del self._at[: bisect_right(self._at, now - MINUTE_S)]
        return max(0, self.most - len(self._at))

    def is_idle(self, now: float) -> bool:
        """True if no start counts any more, or if there is no limit."""
        return self.room(now) in (None, self.most)

    def wait_until(self, now: float) -> float | None:
        """Time at which the next device may begin. None if one may begin now."""
        if self.room(now) != 0:
            return None
        return self._at[-self.most] + MINUTE_S


class TokenBucket:
    """A token bucket: ``per_s`` bytes per second flow in, an offered download consumes its size.

    The capacity is the bytes of ten seconds. A larger download may be offered when the bucket is
    full. The bucket is then in debt, and no download may be offered before the debt is paid.
    """

    HOLDS_S = 10.0

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._bytes = 0.0
        self._at: float | None = None

    def ready_at(self, size_bytes: int, now: float) -> float:
        """Time at which a download of ``size_bytes`` may be offered. Never before ``now``."""
        self._fill(now)
        short = min(float(size_bytes), self._per_s * self.HOLDS_S) - self._bytes
        return now + max(0.0, short / self._per_s)

    def consume(self, size_bytes: int, now: float) -> None:
        self._fill(now)
        self._bytes -= size_bytes

    def _fill(self, now: float) -> None:
        most = self._per_s * self.HOLDS_S
        if self._at is None:
            self._bytes = most
        else:
            self._bytes = min(most, self._bytes + max(0.0, now - self._at) * self._per_s)
        self._at = now


class ByteBudget:
    """The bytes offered by all rollouts, against the limit of each open rollout.

    Each limit is a token bucket from which the bytes of every offered download are consumed, so
    rollouts with the same limit share one bucket. The buckets are not persisted: after a restart
    they are full.
    """

    def __init__(self) -> None:
        self._fleet: dict[int, TokenBucket] = {}  # bytes per second -> bucket
        self._sites: dict[tuple[str, int], dict[str, TokenBucket]] = {}  # (label, bytes per second)
        self.is_bounded = False  # True while an open rollout limits the bytes

    def arrange(self, paces: Collection[tuple[str, PaceSpec]]) -> None:
        """Set the limits: the site label and the pace of each open rollout."""
        rates = {pace.bytes_per_s for _, pace in paces} - {0}
        self._fleet = {rate: self._fleet.get(rate) or TokenBucket(rate) for rate in rates}
        keys = {(label, pace.bytes_per_s_per_site) for label, pace in paces}
        self._sites = {key: self._sites.get(key, {}) for key in keys if key[1]}
        self.is_bounded = bool(self._fleet or self._sites)

    def wait_until(
        self, pace: PaceSpec, label: str, labels: Mapping[str, str], size_bytes: int, now: float
    ) -> float | None:
        """Time at which ``pace`` allows a device with ``labels`` its download. None if it is now.

        ``label`` is the site label of the plan.
        """
        at = now
        if (bucket := self._fleet.get(pace.bytes_per_s)) is not None:
            at = bucket.ready_at(size_bytes, now)
        key = (label, pace.bytes_per_s_per_site)
        if key in self._sites:
            at = max(at, self._site(key, labels).ready_at(size_bytes, now))
        return at if at > now else None

    def busy_until(self, pace: PaceSpec, now: float) -> float | None:
        """Time at which the fleet-wide limit of ``pace`` next allows bytes. None if it does now.

        Limits per site are not considered.
        """
        bucket = self._fleet.get(pace.bytes_per_s)
        at = now if bucket is None else bucket.ready_at(1, now)
        return at if at > now else None

    def consume(self, labels: Mapping[str, str], size_bytes: int, now: float) -> None:
        """Count a download that any rollout offers to a device with these labels."""
        for bucket in self._fleet.values():
            bucket.consume(size_bytes, now)
        for key in self._sites:
            self._site(key, labels).consume(size_bytes, now)

    def _site(self, key: tuple[str, int], labels: Mapping[str, str]) -> TokenBucket:
        buckets, name = self._sites[key], labels.get(key[0], "")
        if name not in buckets:
            buckets[name] = TokenBucket(key[1])
        return buckets[name]
