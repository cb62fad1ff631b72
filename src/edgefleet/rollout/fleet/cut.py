"""Where a wave is cut: a device's position in a rollout, and the exact k-th position.

A position is ``mix64(device hash xor salt)``: independent between rollouts, fixed inside one. A
device lies inside a cut when its position is below the threshold, so 1 % lies inside 10 %.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
EVERYONE: Final = 1 << 64  # the threshold that every position lies below, newcomers' too

_BLOCK: Final = 1 << 15  # positions mixed at once: 256 KiB stay in the processor's cache
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Cut:
    """``count`` of ``population`` devices lie below ``threshold``."""

    count: int
    threshold: int
    population: int


def positions(hashes: Hashes, salt: int) -> Hashes:
    """``base.ids.mix64(hash ^ salt)`` of every hash at once."""
    value = hashes ^ np.uint64(salt)
    shifted = np.empty(min(len(value), _BLOCK), np.uint64)
    for start in range(0, len(value), _BLOCK):
        block = value[start : start + _BLOCK]
        spare = shifted[: len(block)]
        block ^= np.right_shift(block, _S30, out=spare)
        block *= _M1
        block ^= np.right_shift(block, _S27, out=spare)
        block *= _M2
        block ^= np.right_shift(block, _S31, out=spare)
    return value


def wanted(percent: float, population: int) -> int:
    """``ceil(percent / 100 * population)`` of the percent as written: 0.07 % of 10,000 is 7."""
    exact = Decimal(repr(percent)) * population / 100
    return int(exact.to_integral_value(rounding=ROUND_CEILING))


def cut(places: Hashes, percent: float, *, floor: int = 0) -> Cut:
    """Cut the eligible devices at ``places``, never below the threshold ``floor`` of the last wave.

    The floor binds when the population shrank between two waves: waves only grow.
    """
    if percent >= 100:
        return Cut(len(places), EVERYONE, len(places))
    return cut_at(places, wanted(percent, len(places)), floor=floor)


def cut_at(places: Hashes, count: int, *, floor: int = 0) -> Cut:
    """``cut`` after ``count`` devices, or after all there are."""
    population = len(places)
    count = min(count, population)
    threshold = int(np.partition(places, count - 1)[count - 1]) + 1 if count else 0
    if threshold < floor:
        threshold = floor
        count = below(places, threshold)
    return Cut(count, threshold, population)


def below(places: Hashes, threshold: int) -> int:
    """How many positions lie below the threshold."""
    if threshold >= EVERYONE:
        return len(places)
    return int(np.count_nonzero(places < np.uint64(threshold)))
