"""The devices of one rollout by class and standing, and those that no test counts any more.

A report moves one device between standings, at a cost that does not depend on the number of
classes. The counts are functions of the ledger, of the parts taken back and of the facts of the
fleet: ``update`` makes them anew after a fact changed, so a restart gives the same counts.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.rollout import DeviceClass, ExposureSpec, Part
from edgefleet.rollout.evidence.class_test import ClassCount
from edgefleet.rollout.evidence.ledger import DeviceStanding, Ledger
from edgefleet.rollout.evidence.taken_parts import FindValues, TakenParts
from edgefleet.rollout.fleet.columns import Mask, Rows

Standings = npt.NDArray[np.uint8]

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_NONE: Final = DeviceStanding.NONE
_TRIAL: Final = DeviceStanding.TRIAL
_HEALTHY: Final = DeviceStanding.HEALTHY
_REFUSED: Final = DeviceStanding.REFUSED
_FAILED: Final = DeviceStanding.FAILED

_LEAST_SHARE: Final = 0.5  # of ``exposure.first`` that a class may have in trial at first


class Tally:
    """The counts of one rollout. ``reserved_rows`` returns the devices with a reserved place.

    ``devices`` is the number of eligible devices when ``classes`` were set.
    """

    def __init__(
        self,
        classes: tuple[DeviceClass, ...],
        devices: int,
        ledger: Ledger,
        find_values: FindValues,
        reserved_rows: Callable[[], tuple[int, ...]],
    ) -> None:
        self.classes = classes
        self._shares = [one.devices / max(1, devices) for one in classes]
        self._ledger = ledger
        self._reserved_rows = reserved_rows
        keys = tuple(dict.fromkeys(one.key for one in classes))
        # For each key: its values, and the index in ``classes`` of the value with number 1, less 1.
        self._keys = tuple(
            (
                find_values(key, [one.value for one in classes if one.key == key]),
                next(place for place, one in enumerate(classes) if one.key == key) - 1,
            )
            for key in keys
        )
        self._taken: TakenParts[Part] = TakenParts((), ledger, find_values)
        self._facts = -1  # version of the facts of the last count
        self._counts = [[0] * len(classes) for _ in DeviceStanding]  # by standing and class
        self._reserved = [0] * len(classes)
        self._lost = [0] * len(classes)
        self.out = [0] * len(DeviceStanding)  # devices of parts taken back, by standing

    # Changes.

    def arrange(self, taken: TakenParts[Part]) -> None:
        """Devices of the parts in ``taken`` count no more."""
        if taken is not self._taken:
            self._taken = taken
            self._count_anew()

    def update(self, facts_version: int) -> None:
        """Count anew if a fact of the fleet changed, or if devices may have changed their part."""
        timed = any(part.since is not None for part in self._taken.parts)
        if timed or (self._keys and facts_version != self._facts):
            self._facts = facts_version
            self._count_anew()

    def recount(self) -> None:
        """Count anew: the ledger has other reports than those that were told."""
        self._count_anew()

    def move(self, row: int, before: DeviceStanding, after: DeviceStanding) -> None:
        """The device has another standing."""
        if self._taken and self._taken.has(row):
            self.out[before] -= 1
            self.out[after] += 1
            return
        for values, offset in self._keys:
            number = values.number(row)
            if number:
                self._counts[before][offset + number] -= 1
                self._counts[after][offset + number] += 1

    def move_all(self, rows: Rows, before: Standings, after: Standings) -> None:
        """``move`` for each of the ascending ``rows``."""
        if self._taken:
            out = self._taken.all_have(rows)
            for one in DeviceStanding:
                self.out[one] += int(np.count_nonzero(after[out] == one))
                self.out[one] -= int(np.count_nonzero(before[out] == one))
            rows, before, after = rows[~out], before[~out], after[~out]
        for values, offset in self._keys:
            numbers = values.numbers(rows)
            for standings, change in ((before, -1), (after, 1)):
                for standing in np.flatnonzero(np.bincount(standings)).tolist():
                    counts = self._counts[standing]
                    for number, count in _counted(numbers[standings == standing]):
                        counts[offset + number] += change * count

    def reserve(self, rows: Sequence[int], change: int) -> None:
        """Places of ``rows`` are reserved (``change`` 1) or free again (-1)."""
        for values, offset in self._keys:
            for row in rows:
                number = values.number(row)
                if number:
                    self._reserved[offset + number] += change

    def set_lost(self, rows: Rows) -> None:
        """``rows`` are in trial, silent, and began before the last pause."""
        if self._keys:
            self._lost = self._in_classes(rows)

    # Answers.

    def count(self, standing: DeviceStanding) -> int:
        """Number of devices with this standing that the tests count."""
        return self._ledger.count(standing) - self.out[standing]

    def _in_classes(self, rows: Rows) -> list[int]:
        """Number of ``rows`` in each class."""
        found = [0] * len(self.classes)
        for values, offset in self._keys:
            for number, count in _counted(values.numbers(rows)):
                found[offset + number] += count
        return found

    def classes_begun(self, silent: Rows, excused: Rows, damaged: Rows) -> list[ClassCount]:
        """Failures and starts of each class of which a device has begun.

        ``silent`` devices in trial count as failed, and ``excused`` devices that failed do not
        count. ``damaged`` devices have not begun, and count as refused.
        """
        silent_in, excused_in = self._in_classes(silent), self._in_classes(excused)
        damaged_in = self._in_classes(damaged)
        found: list[ClassCount] = []
        for place, one in enumerate(self.classes):
            bad = self._counts[_FAILED][place] + self._counts[_REFUSED][place]
            bad += damaged_in[place] - excused_in[place]
            size = bad + self._counts[_HEALTHY][place] + self._counts[_TRIAL][place]
            if size:
                bad += silent_in[place]
                found.append(ClassCount(one.key, one.value, bad, size))
        return found

    def full_class(self, row: int, spec: ExposureSpec) -> int | None:
        """The index of a class of the device that may have no more devices in trial."""
        for values, offset in self._keys:
            number = values.number(row)
            if number and self._free_places(offset + number, spec) <= 0:
                return offset + number
        return None

    def all_full(self, rows: Rows, spec: ExposureSpec) -> Mask:
        """``full_class`` is not None, for each of ``rows``."""
        return self._blocked(rows, [self._free_places(n, spec) for n in range(len(self.classes))])

    def admit(self, rows: Rows, most: int, spec: ExposureSpec) -> npt.NDArray[np.intp]:
        """Indices of the ``most`` first of ``rows`` for which each class has a place, in order."""
        asking = np.arange(len(rows))
        if not self._keys:
            return asking[:most]
        free = [self._free_places(place, spec) for place in range(len(self.classes))]
        chosen: list[npt.NDArray[np.intp]] = []
        while most > 0 and len(asking := asking[~self._blocked(rows[asking], free)]):
            end = self._first_above(rows[asking[:most]], free)
            chosen.append(asking[:end])
            self._consume(rows[asking[:end]], free)
            most -= end
            asking = asking[end:]
        return np.concatenate([asking[:0], *chosen])

    def limit(self, place: int, spec: ExposureSpec) -> int:
        """How many devices of a class may be in trial at once.

        It begins with half of ``first``, or with the share of a larger class, and grows with the
        healthy devices of the class. Devices that were lost before a pause keep no place.
        """
        first = math.ceil(spec.first * max(_LEAST_SHARE, self._shares[place]))
        return max(first, int(spec.growth * self._counts[_HEALTHY][place])) + self._lost[place]

    def in_trial(self, place: int) -> int:
        """Devices of a class that are in trial, or have a reserved place."""
        return self._counts[_TRIAL][place] + self._reserved[place]

    # Counting.

    def _free_places(self, place: int, spec: ExposureSpec) -> int:
        return self.limit(place, spec) - self.in_trial(place)

    def _blocked(self, rows: Rows, free: list[int]) -> Mask:
        blocked: Mask = np.zeros(len(rows), np.bool_)
        if min(free, default=1) > 0:
            return blocked
        for values, offset in self._keys:
            blocked |= self._by_number(values.numbers(rows), offset, free) <= 0
        return blocked

    def _first_above(self, rows: Rows, free: list[int]) -> int:
        """How many of ``rows`` find a place in all of their classes, from the first on."""
        end = len(rows)
        for values, offset in self._keys:
            numbers = values.numbers(rows)
            for number, count in _counted(numbers):
                most = free[offset + number]
                if count > most:
                    end = min(end, int(np.flatnonzero(numbers == number)[most]))
        return end

    def _consume(self, rows: Rows, free: list[int]) -> None:
        for values, offset in self._keys:
            for number, count in _counted(values.numbers(rows)):
                free[offset + number] -= count

    @staticmethod
    def _by_number(
        numbers: npt.NDArray[np.uint8], offset: int, free: list[int]
    ) -> npt.NDArray[np.int64]:
        """The free places of the class of each number. 1 for devices without a class."""
        table = np.ones(256, np.int64)
        for number in np.flatnonzero(np.bincount(numbers)).tolist():
            if number:
                table[number] = free[offset + number]
        return table[numbers]

    def _count_anew(self) -> None:
        self._counts = [[0] * len(self.classes) for _ in DeviceStanding]
        self._reserved = [0] * len(self.classes)
        self.out = [0] * len(DeviceStanding)
        rows = self._ledger.reported_rows
        standings = self._ledger.standings(rows)
        self.move_all(rows, np.full(len(rows), _NONE, np.uint8), standings)
        self.reserve(self._reserved_rows(), 1)


def _counted(numbers: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Each number above 0 that occurs, with its count."""
    counts = np.bincount(numbers)
    return [(number, int(counts[number])) for number in np.flatnonzero(counts).tolist() if number]
