"""The interface to time."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for people and records, monotonic time for durations."""

    def now(self) -> float:
        """Seconds since the Unix epoch. The value jumps when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start. The value never decreases."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class SteadyClock:
    """Wall time at the start of this process, plus the monotonic time since.

    For code that measures durations by wall time: setting the machine's clock has no effect on it.
    """

    def __init__(self, machine: Clock | None = None) -> None:
        self._machine = machine or SystemClock()
        self._epoch = self._machine.now() - self._machine.monotonic()

    def now(self) -> float:
        return self._epoch + self._machine.monotonic()

    def monotonic(self) -> float:
        return self._machine.monotonic()
