"""The order in which devices began a release: their buckets and episodes.

A device has a key, the time at which the hub received its start. Everything here is a function of
the keys and standings of all devices, so the order of replay after a restart does not matter.

An *episode* begins with a device that begins after a pause of ``pause_s``, in which no device began
and no wave opened: devices that return together, stragglers, newcomers. ``pause_s`` is the longest
duration of a trial.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.rollout.evidence.detector import Counts, Floats, Grid
from edgefleet.rollout.fleet.columns import Mask, Rows, longer
from edgefleet.rollout.limits import LATE_EPISODES

KEYS_PER_S: Final = 10.0
_LAST_KEY: Final = (1 << 32) - 1  # after 13 years
_NEVER: Final = 0  # the key of a device that has not begun


@dataclass(frozen=True, slots=True)
class Course:
    """The inputs of the order beside the starts: the plan, and the times when waves opened."""

    grid: Grid
    since: float  # seconds since the epoch; no device began before
    pause_s: float
    opened: tuple[float, ...] = ()  # when each wave opened, ascending


@dataclass(slots=True)
class _Bucket:
    key: int  # of the first device in it
    position: int  # devices that began before it
    number: int  # buckets up to this one that began because another was full
    episode: int  # the episode that contains it; 0 before the first
    log_weight: float  # of the test that begins with it
    begun: int = 0


class Activations:
    """The keys of the devices of one rollout, and their buckets.

    A bucket ends with the first later key after it is full, so devices with equal keys share one.
    """

    def __init__(self, course: Course) -> None:
        self.course = course
        self._pause = course.pause_s * KEYS_PER_S
        self._opened = [self.key(at) for at in course.opened]  # the key of each wave
        self._keys = np.zeros(0, np.uint32)
        self._keys_at = self._keys.data
        self._buckets: list[_Bucket] = []
        self._begins: list[int] = []  # the key of each bucket
        self._episodes: list[int] = []  # the key of each episode
        self._last = _NEVER  # the highest key
        self._full_at = 0  # devices of the last bucket at which it is full
        self._stale = _LAST_KEY + 1  # buckets from this key on are outdated

    # Changes.

    def arrange(self, course: Course) -> None:
        """Use another course. The opening of a wave changes no bucket of earlier devices."""
        if course == self.course:
            return
        known, opened = self.course.opened, course.opened
        goes_on = course == replace(self.course, opened=opened) and opened[: len(known)] == known
        self.course = course
        self._pause = course.pause_s * KEYS_PER_S
        new = [self.key(at) for at in opened[len(known) if goes_on else 0 :]]
        self._opened = [self.key(at) for at in opened]
        since = min(new, default=_LAST_KEY) if goes_on else _NEVER + 1
        if since <= self._last:
            self._stale = min(self._stale, since)

    def begin(self, row: int, at: float | None) -> None:
        """A device began. Without a time it began with the last device before it."""
        key = self.key(at)
        self._keys_at[row] = key
        self._add(key, 1)

    def begin_all(self, rows: Rows, at: float | None) -> None:
        """``begin`` for many devices at one time."""
        if len(rows):
            key = self.key(at)
            self._keys[rows] = key
            self._add(key, len(rows))

    def move(self, row: int, at: float | None) -> None:
        """The device began at another time than was known."""
        key = self.key(at)
        if key != self._keys_at[row]:
            self._stale = min(self._stale, key, self._keys_at[row])
            self._keys_at[row] = key

    def end(self, row: int) -> None:
        """The start of the device does not count any more."""
        self._stale = min(self._stale, self._keys_at[row])
        self._keys_at[row] = _NEVER

    def load(self, rows: npt.NDArray[np.uint32], keys: npt.NDArray[np.uint32]) -> None:
        """The devices in ``rows``, within the columns, began at ``keys``. No other device began."""
        self._keys[rows] = keys
        self._stale = _NEVER + 1

    def grow(self, rows: int) -> None:
        self._keys = longer(self._keys, rows)
        self._keys_at = self._keys.data

    # Answers.

    def key(self, at: float | None) -> int:
        """The key of a time. It is 1 for the begin of the rollout and for times before it."""
        if at is None:
            return max(1, self._last)
        return min(max(1, int((at - self.course.since) * KEYS_PER_S) + 1), _LAST_KEY)

    def time(self, key: int) -> float:
        """The earliest time with this key."""
        return self.course.since + (key - 1) / KEYS_PER_S

    def key_of(self, row: int) -> int:
        """The key of a device; 0 if it has not begun."""
        return self._keys_at[row] if row < len(self._keys_at) else _NEVER

    def keys(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """``key_of`` for rows that are within the columns."""
        return self._keys[rows]

    def is_paused(self, now: float) -> bool:
        """True if a device that began now would begin an episode."""
        self._settle()
        return self._is_after_pause(self.key(now))

    @property
    def episode_key(self) -> int:
        """The key at which the last episode began. 0 while there is none."""
        self._settle()
        return self._episodes[-1] if self._episodes else 0

    def episode_of(self, bucket: int) -> int:
        """The key at which the episode of this bucket began. 0 before the first episode."""
        number = self._buckets[bucket].episode
        return self._episodes[number - 1] if number else 0

    def is_between(self, row: int, since: float | None, until: float | None) -> bool:
        """True if the device began between two times. None: at any time before or after."""
        first, last = self._keys_between(since, until)
        return first <= self.key_of(row) <= last

    def are_between(self, rows: Rows, since: float | None, until: float | None) -> Mask:
        """``is_between`` for each of ``rows``, within the columns."""
        first, last = self._keys_between(since, until)
        keys = self._keys[rows]
        between: Mask = (keys >= first) & (keys <= last)
        return between

    def _keys_between(self, since: float | None, until: float | None) -> tuple[int, int]:
        first = _NEVER + 1 if since is None else self.key(since)
        return first, _LAST_KEY if until is None else self.key(until)

    def bucket_key(self, bucket: int) -> int:
        """The key of the first device in this bucket."""
        return self._buckets[bucket].key

    def begun(self) -> Counts:
        """The number of devices that began in each bucket."""
        self._settle()
        return np.array([one.begun for one in self._buckets], np.int64)

    def count(self, rows: Rows) -> Counts:
        """The number of ``rows``, within the columns, that began in each bucket."""
        self._settle()
        keys = self._keys[rows]
        places = np.searchsorted(np.array(self._begins, np.int64), keys[keys > _NEVER], "right") - 1
        return np.bincount(places, minlength=len(self._buckets)).astype(np.int64)

    def log_weights(self) -> Floats:
        """The log weight of the start at each bucket."""
        self._settle()
        return np.array([one.log_weight for one in self._buckets])

    # The buckets.

    def _add(self, key: int, devices: int) -> None:
        if key < self._last:
            self._stale = min(self._stale, key)
            return
        if not self._buckets or (key > self._last and self._ends_before(key)):
            self._open(key)
        self._last = key
        self._buckets[-1].begun += devices

    def _ends_before(self, key: int) -> bool:
        """True if the last bucket does not contain ``key``, which is later than all before it."""
        return self._buckets[-1].begun >= self._full_at or self._is_episode(key)

    def _is_episode(self, key: int) -> bool:
        return self._is_after_pause(key) and len(self._episodes) < LATE_EPISODES

    def _is_after_pause(self, key: int) -> bool:
        if not self._buckets or key - self._last <= self._pause:
            return False
        place = bisect_right(self._opened, key)
        return place == 0 or key - self._opened[place - 1] > self._pause

    def _open(self, key: int) -> None:
        last = self._buckets[-1] if self._buckets else None
        begins_episode = self._is_episode(key)
        if begins_episode:
            self._episodes.append(key)
        position = last.position + last.begun if last is not None else 0
        number = last.number if last is not None else 0
        self._buckets.append(
            _Bucket(
                key=key,
                position=position,
                number=number + (not begins_episode),
                episode=len(self._episodes),
                log_weight=self.course.grid.log_weight(
                    number + 1, len(self._episodes) if begins_episode else 0
                ),
            )
        )
        self._begins.append(key)
        self._full_at = self.course.grid.size(position)

    def _settle(self) -> None:
        """Make the outdated buckets anew, from the last one that began before the first change.

        The begin of a bucket depends only on earlier keys.
        """
        if self._stale > _LAST_KEY:
            return
        kept = max(0, bisect_left(self._begins, self._stale) - 1)
        since = self._begins[kept] if kept else 1
        del self._buckets[kept:], self._begins[kept:]
        del self._episodes[bisect_left(self._episodes, since) :]
        earlier = self._keys[self._keys < since]
        self._last = int(earlier.max()) if kept else _NEVER
        if kept:
            last = self._buckets[-1]
            self._full_at = self.course.grid.size(last.position)
        self._stale = _LAST_KEY + 1
        keys, counts = np.unique(self._keys[self._keys >= since], return_counts=True)
        for key, devices in zip(keys.tolist(), counts.tolist(), strict=True):
            self._add(key, devices)
