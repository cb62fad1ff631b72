"""What is to happen to single devices, in order: plain tuples in a heap, millions of them a minute.

``sim.world`` is the same thing for a few thousand devices, with callbacks.
"""

import heapq
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final

from edgefleet.sim.virtual.active_device import Live


class Due(IntEnum):
    """What an entry is."""

    TIMER = 0  # the core wants to look
    HAPPENED = 1  # an effect came to its end; the payload is the event
    ARRIVES = 2  # a check-in reaches the hub; the payload is (CheckIn, the device waits)
    BOOTS = 3  # the power is back
    ANSWERED = 4  # the hub told some this and some that; the payload are the events with their rows


# Bound once, as each event asks for one: Python 3.11 takes 0.2 us to find a member in its class.
TIMER: Final = Due.TIMER
HAPPENED: Final = Due.HAPPENED
ARRIVES: Final = Due.ARRIVES
BOOTS: Final = Due.BOOTS
ANSWERED: Final = Due.ANSWERED

Entry = tuple[float, int, Due, Live, int, Any]


class Agenda:
    """Entries of one moment come out in the order in which they were put in.

    Those of later seconds lie in a list a second, unsorted: one heap of all would be paid for with
    a cache miss a level.
    """

    __slots__ = ("_later", "_now", "_order", "_second")

    def __init__(self, second: int) -> None:
        self._second = second
        self._now: list[Entry] = []
        self._later: dict[int, list[Entry]] = {}
        self._order = 0

    def put(self, at: float, due: Due, live: Live, payload: Any = None) -> None:
        """``live`` hears of it at ``at``, unless its power went before."""
        self._order += 1
        entry = (at, self._order, due, live, live.life, payload)
        second = int(at)
        if second <= self._second:
            heapq.heappush(self._now, entry)
        elif second in self._later:
            self._later[second].append(entry)
        else:
            self._later[second] = [entry]

    def during(self, second: int) -> Iterator[Entry]:
        """Take out what is due before ``second`` ends, what is put in meanwhile included.

        Call it for every second, one after the other.
        """
        self._second = second
        for entry in self._later.pop(second, ()):
            self._now.append(entry)
        heap = self._now
        heapq.heapify(heap)
        while heap:
            yield heapq.heappop(heap)
