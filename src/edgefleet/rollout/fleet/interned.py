"""A bounded table of the distinct values of a column. The column has their numbers.

Values come from reports, so a device that invents combinations can make many of them. Each time the
table has doubled, it drops the values that no row has any more, and numbers the others anew.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint16]
T = TypeVar("T")

CAP: Final = 1 << 16  # numbers that fit into the column
_FIRST: Final = 1024  # values before the table is numbered anew for the first time
_MISSES: Final = 64  # new values that find a full table before it is numbered anew again


class Interned(Generic[T]):
    """Distinct values by number: ``values[number]``. Do not write to ``values``.

    The ``fixed`` values have the lowest numbers, always. ``version`` grows each time the values are
    numbered anew: every number that was read before is invalid then, except those of ``fixed``.
    """

    def __init__(self, *fixed: T) -> None:
        self.version = 0
        self.values = list(fixed)
        self._fixed = len(fixed)
        self._numbers = {value: number for number, value in enumerate(fixed)}
        self._anew_at = min(CAP, _FIRST)
        self._misses = 0

    def __len__(self) -> int:
        return len(self.values)

    def number(self, value: T, column: Numbers) -> int | None:
        """The number of ``value``. None if it is new and the table is full.

        ``column`` has every number in use. It is changed if the table is numbered anew.
        """
        number = self._numbers.get(value)
        if number is not None:
            return number
        if len(self.values) >= self._anew_at and not self._misses:
            self._number_anew(column)
        if len(self.values) >= CAP:
            self._misses = (self._misses + 1) % _MISSES
            return None
        number = self._numbers[value] = len(self.values)
        self.values.append(value)
        return number

    def replace(self, values: Sequence[T]) -> None:
        """Replace all values but the fixed ones."""
        self.values[self._fixed :] = values
        self._numbers = {value: number for number, value in enumerate(self.values)}
        self.version += 1

    def _number_anew(self, column: Numbers) -> None:
        """Drop the values that ``column`` does not have."""
        live = np.bincount(column, minlength=len(self.values)) > 0
        live[: self._fixed] = True
        renumbered = (np.cumsum(live) - 1).astype(column.dtype)
        column[:] = renumbered[column]
        self.values[:] = [self.values[number] for number in np.flatnonzero(live).tolist()]
        self._numbers = {value: number for number, value in enumerate(self.values)}
        self._anew_at = min(CAP, max(_FIRST, 2 * len(self.values)))
        self.version += 1
