"""Quiet time: how far apart the looks of the hub may lie while nothing happens."""

import math
from typing import Final

LONGEST_TICK_S: Final = 60


class Quiet:
    """When the hub looks next, on a grid of ``tick_s`` from ``start``.

    While ``mark``, which stands for all that can happen, stays the same, each pause is twice the
    one before it, up to ``LONGEST_TICK_S``; once it changes, the next moment of the grid counts.
    """

    def __init__(self, tick_s: int, start: int, now: int) -> None:
        self.tick_at = now
        self._tick_s = self._pause_s = tick_s
        self._start = start
        self._mark: object = None

    @property
    def resting(self) -> bool:
        """Nothing has happened between the last two looks."""
        return self._pause_s > self._tick_s

    def heed(self, second: int, mark: object) -> None:
        """Notice whether something has happened before ``second``."""
        if mark != self._mark:
            self._mark = mark
            self._pause_s = self._tick_s
            self.tick_at = min(self.tick_at, self._on_grid(second))

    def looked(self, second: int, deadline: float) -> None:
        """The hub has looked; at ``deadline`` time alone changes what it would see."""
        self.tick_at = min(
            self._on_grid(second + self._pause_s), max(second + 1, self._on_grid(deadline))
        )
        self._pause_s = min(2 * self._pause_s, max(LONGEST_TICK_S, self._tick_s))

    def _on_grid(self, at: float) -> int:
        """The first moment of the grid that is not before ``at``."""
        if math.isinf(at):
            return 1 << 62
        return self._start + math.ceil((at - self._start) / self._tick_s) * self._tick_s
