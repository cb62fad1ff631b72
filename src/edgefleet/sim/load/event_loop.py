"""Virtual time: an event queue, and a clock that moves from one event to the next.

A simulation has no other source of time. Actions with equal times run in the order in which they
were scheduled, so a run depends only on its seeds.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Action = Callable[[], None]
T = TypeVar("T")


@dataclass(slots=True)
class Appointment:
    """A scheduled action. A cancelled one is skipped."""

    at: float
    action: Action | None

    def cancel(self) -> None:
        self.action = None


class EventLoop:
    """A clock (``base.clock.Clock``) with a heap of scheduled actions. Single-threaded."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._order = 0
        self._heap: list[tuple[float, int, Appointment]] = []
        self.happened = 0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def at(self, when: float, action: Action) -> Appointment:
        """Schedule ``action`` at ``when``, or now if ``when`` is past."""
        appointment = Appointment(max(when, self._now), action)
        heapq.heappush(self._heap, (appointment.at, self._order, appointment))
        self._order += 1
        return appointment

    def after(self, delay_s: float, action: Action) -> Appointment:
        return self.at(self._now + delay_s, action)

    def next_at(self) -> float | None:
        """Time of the next action. None if nothing is scheduled."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self, until: float, *, at_most: int | None = None) -> bool:
        """Run all actions up to ``until``. Returns whether ``until`` was reached.

        After ``at_most`` actions it stops early, at the time of the last one, and returns False.
        """
        done = 0
        while (due := self.next_at()) is not None and due <= until:
            if done == at_most:
                return False
            _, _, appointment = heapq.heappop(self._heap)
            action, appointment.action = appointment.action, None
            self._now = due
            self.happened += 1
            done += 1
            if action:
                action()
        self._now = max(self._now, until)
        return True


class Scope:
    """Actions and callbacks that are cancelled together, by a power cut or a stopped job."""

    __slots__ = ("_open", "_world")

    def __init__(self, world: EventLoop) -> None:
        self._world = world
        self._open = True

    def at(self, when: float, action: Action) -> Appointment:
        return self._world.at(when, lambda: action() if self._open else None)

    def after(self, delay_s: float, action: Action) -> Appointment:
        return self.at(self._world.now() + delay_s, action)

    def guarded(self, done: Callable[[T], None]) -> Callable[[T], None]:
        """``done``, without effect once the scope has ended."""
        return lambda value: done(value) if self._open else None

    def end(self) -> None:
        self._open = False
