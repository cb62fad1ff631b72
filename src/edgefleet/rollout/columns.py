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
