"""Columns with one entry per device, and selections of their rows."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)


def gather(column: npt.NDArray[_T], rows: Rows) -> npt.NDArray[_T]:
    """``column[rows]`` for ascending ``rows``. A view if they are the first rows.

    Do not write to the result, and do not keep it.
    """
    if len(rows) and rows[-1] == len(rows) - 1:
        return column[: len(rows)]
    return column[rows]


def longer(column: npt.NDArray[_T], capacity: int) -> npt.NDArray[_T]:
    """A copy of the column with ``capacity`` rows. The new rows are zero."""
    grown = np.zeros(capacity, column.dtype)
    grown[: len(column)] = column
    return grown


class RowSelection:
    """The ascending rows that a mask selects from ``rows``. ``count`` is the number selected.

    The rows are gathered only when ``all`` is called, because most callers need only the count and
    the first few rows of a wave of a million devices.
    """

    __slots__ = ("_all", "_mask", "_rows", "count")

    def __init__(self, rows: Rows, mask: Mask) -> None:
        self._rows = rows
        self._mask = mask
        self.count = int(np.count_nonzero(mask))
        self._all: Rows | None = rows if self.count == len(rows) else None

    @classmethod
    def of(cls, rows: Rows) -> "RowSelection":
        """A selection of all ``rows``."""
        return cls(rows, np.ones(len(rows), np.bool_))

    def __len__(self) -> int:
        return self.count

    def only(self, mask: Mask) -> "RowSelection":
        """The selected rows for which ``mask``, one entry per row of ``all``, is true."""
        return RowSelection(self.all(), mask)

    def first(self, count: int) -> Rows:
        """The lowest selected rows, at most ``count``."""
        end = 4 * count
        while end < len(self._rows) and np.count_nonzero(self._mask[:end]) < count:
            end *= 4
        return self._rows[:end][self._mask[:end]][:count]

    def all(self) -> Rows:
        """All selected rows. Do not write to the result."""
        if self._all is None:
            self._all = self._rows[self._mask]
        return self._all
