"""Columns with one entry a device, and rows of them."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)


def taken(column: npt.NDArray[_T], rows: Rows) -> npt.NDArray[_T]:
    """``column[rows]`` of ``rows`` that ascend: no copy if they are the first of all.

    Do not write to it, and do not keep it.
    """
    if len(rows) and rows[-1] == len(rows) - 1:
        return column[: len(rows)]
    return column[rows]


def longer(column: npt.NDArray[_T], capacity: int) -> npt.NDArray[_T]:
    """The column with room for ``capacity`` rows, new ones zero."""
    grown = np.zeros(capacity, column.dtype)
    grown[: len(column)] = column
    return grown


class RowSelection:
    """Rows, ascending, that a mask selects out of others. ``count`` is their number.

    The rows are gathered only when ``all`` is called: of a wave of a million devices most callers
    want the count and the first few names.
    """

    __slots__ = ("_all", "_mask", "_rows", "count")

    def __init__(self, rows: Rows, mask: Mask) -> None:
        self._rows = rows
        self._mask = mask
        self.count = int(np.count_nonzero(mask))
        self._all: Rows | None = rows if self.count == len(rows) else None

    @classmethod
    def of(cls, rows: Rows) -> "RowSelection":
        """All of ``rows``."""
        return cls(rows, np.ones(len(rows), np.bool_))

    def __len__(self) -> int:
        return self.count

    def only(self, mask: Mask) -> "RowSelection":
        """Those of them for which it holds: one truth value for each of ``all``."""
        return RowSelection(self.all(), mask)

    def first(self, count: int) -> Rows:
        """The lowest of them, so many at most."""
        end = 4 * count
        while end < len(self._rows) and np.count_nonzero(self._mask[:end]) < count:
            end *= 4
        return self._rows[:end][self._mask[:end]][:count]

    def all(self) -> Rows:
        """Each of them. Do not write to it."""
        if self._all is None:
            self._all = self._rows[self._mask]
        return self._all
