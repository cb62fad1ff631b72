"""A set of rows in a byte a row: a million rows are a megabyte, where a ``set`` takes sixty."""

import numpy as np

from edgefleet.rollout.fleet import Mask, Rows, longer


class RowSet:
    """Grows as needed; ``len`` is kept. ``rows`` name no row twice."""

    __slots__ = ("_count", "_there")

    def __init__(self) -> None:
        self._there: Mask = np.zeros(1024, np.bool_)
        self._count = 0

    def add(self, rows: Rows) -> Mask:
        """True where one was not there."""
        top = int(rows.max()) if len(rows) else 0
        if top >= len(self._there):
            self._there = longer(self._there, max(top + 1, 2 * len(self._there)))
        new = ~self._there[rows]
        self._there[rows] = True
        self._count += int(np.count_nonzero(new))
        return new

    def discard(self, rows: Rows) -> None:
        there = rows[self.has(rows)]
        self._there[there] = False
        self._count -= len(there)

    def has(self, rows: Rows) -> Mask:
        """True where one is there."""
        known = rows < len(self._there)
        if known.all():
            return self._there[rows]
        known[known] = self._there[rows[known]]
        return known

    def __len__(self) -> int:
        return self._count
