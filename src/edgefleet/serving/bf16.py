"""BF16, the upper half of an FP32, in arrays of NumPy, which has no such type.

Its elements are two raw bytes (``V2``), little-endian, so that no arithmetic takes them for other
numbers: an array is widened to FP32 where its values matter.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefleet.protocol.release import LAYOUTS

BF16: Final = np.dtype(LAYOUTS["BF16"])

_BITS: Final = "<u2"
_INFINITE: Final = 0x7F80  # the bits of the exponent: all are set in infinities and NaN
_QUIET: Final = 0x0040


def widened(array: NDArray[Any]) -> NDArray[np.float32]:
    """The values of a BF16 array as FP32, all exact."""
    wide: NDArray[np.float32] = (array.view(_BITS).astype("<u4") << 16).view("<f4")
    return wide


def numbers(array: NDArray[Any]) -> NDArray[Any]:
    """The values of an array of any datatype as NumPy computes with them: BF16 as FP32."""
    return widened(array) if array.dtype == BF16 else array


def all_numbers(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """``numbers`` of each tensor, by name."""
    return {name: numbers(array) for name, array in tensors.items()}


def is_finite(array: NDArray[Any]) -> bool:
    """Whether a BF16 array has neither infinities nor NaN."""
    return bool(((array.view(_BITS) & _INFINITE) != _INFINITE).all())


def rounded(values: ArrayLike) -> NDArray[Any]:
    """The nearest BF16 of each value, of two equally near the even one. Too large: infinite.

    Values are rounded once: to FP32 first would round a value beside a tie to the tie.
    """
    with np.errstate(all="ignore"):
        wide = np.asarray(values, np.float64)
        near = wide.astype("<f4")
    bits = near.view("<u4")
    # FP32 towards zero, whose last bit is set if anything is lost: it is then no tie of BF16.
    odd = (bits - (np.abs(near) > np.abs(wide))) | (near != wide)
    upper = (odd + (0x7FFF + ((odd >> 16) & 1))) >> 16
    made = np.where(np.isnan(wide), bits >> 16 | _QUIET, upper)
    return np.asarray(made.astype(_BITS)).view(BF16)


def from_numbers(values: ArrayLike) -> NDArray[Any]:
    """``rounded``. Raises OverflowError for a finite value that is too large."""
    wide = np.asarray(values, np.float64)
    made = rounded(wide)
    if not is_finite(made) and (np.isfinite(wide) & ~np.isfinite(widened(made))).any():
        raise OverflowError("a number is too large")
    return made
