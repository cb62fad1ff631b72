"""Sparse ticks: longer pauses between the hub's ticks while nothing happens."""

import math
from typing import Final

LONGEST_TICK_S: Final = 60


class TickSchedule:
    """The time of the hub's next tick, on a grid of ``tick_s`` from ``start``.

    While ``mark``, a value that changes with every event, stays the same, each pause is twice the
    previous one, up to ``LONGEST_TICK_S``. After a change the next time of the grid is used.
    """

    def __init__(self, tick_s: int, start: int, now: int) -> None:
        self.tick_at = now
        self._tick_s = self._pause_s = tick_s
        self._start = start
        self._mark: object = None

    @property
    def resting(self) -> bool:
        """Whether nothing happened between the last two ticks."""
        return self._pause_s > self._tick_s

    def update(self, second: int, mark: object) -> None:
        """Bring the next tick forward if ``mark`` has changed before ``second``."""
        if mark != self._mark:
            self._mark = mark
            self._pause_s = self._tick_s
            self.tick_at = min(self.tick_at, self._on_grid(second))

    def ticked(self, second: int, deadline: float) -> None:
        """Schedule the tick after ``second``, not later than the grid time after ``deadline``."""
        self.tick_at = min(
            self._on_grid(second + self._pause_s), max(second + 1, self._on_grid(deadline))
        )
        self._pause_s = min(2 * self._pause_s, max(LONGEST_TICK_S, self._tick_s))

    def _on_grid(self, at: float) -> int:
        """The first time of the grid that is not before ``at``."""
        if math.isinf(at):
            return 1 << 62
        return self._start + math.ceil((at - self._start) / self._tick_s) * self._tick_s
