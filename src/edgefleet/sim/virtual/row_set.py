"""A set of rows with one byte per row: 1 MB for a million rows, a ``set`` needs 60 MB."""

from typing import Final

import numpy as np

from edgefleet.rollout.fleet.columns import Mask, Rows, longer

_NEW: Final[Mask] = np.ones(1, np.bool_)  # shared answers for the frequent case of one row
_OLD: Final[Mask] = np.zeros(1, np.bool_)


class RowSet:
    """Grows as needed. ``rows`` must not contain a row twice."""

    __slots__ = ("_count", "_there")

    def __init__(self) -> None:
        self._there: Mask = np.zeros(1024, np.bool_)
        self._count = 0

    def add(self, rows: Rows) -> Mask:
        """Add rows. Returns True for each row that is new."""
        if len(rows) == 1 and (row := int(rows[0])) < len(self._there):
            if self._there[row]:
                return _OLD
            self._there[row] = True
            self._count += 1
            return _NEW
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
        """True for each row that is in the set."""
        if len(rows) == 1:
            row = int(rows[0])
            return _NEW if row < len(self._there) and self._there[row] else _OLD
        known = rows < len(self._there)
        if known.all():
            return self._there[rows]
        known[known] = self._there[rows[known]]
        return known

    def __len__(self) -> int:
        return self._count
