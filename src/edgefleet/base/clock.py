"""The door to time."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for people and records, monotonic time for durations."""

    def now(self) -> float:
        """Seconds since the Unix epoch; may jump when somebody sets the clock."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never runs backwards."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class SteadyClock:
    """The machine's wall time as this process began, then only what passed since.

    For whoever decides by how long something took: a clock that is set meanwhile changes nothing.
    """

    def __init__(self, machine: Clock | None = None) -> None:
        self._machine = machine or SystemClock()
        self._epoch = self._machine.now() - self._machine.monotonic()

    def now(self) -> float:
        return self._epoch + self._machine.monotonic()

    def monotonic(self) -> float:
        return self._machine.monotonic()
