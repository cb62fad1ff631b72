"""The cut of a wave: the position of each device in a rollout, and the exact k-th position.

A position is ``mix64(device hash xor salt)``: independent between rollouts, fixed within one
rollout. A device is inside a cut if its position is below the threshold, so the devices of a 1 %
wave are also in the 10 % wave.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
EVERYONE: Final = 1 << 64  # a threshold above every position, also of devices enrolled later

_BLOCK: Final = 1 << 15  # positions mixed at once: 256 KiB fit in the processor cache
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Cut:
    """``count`` of ``population`` devices lie below ``threshold``."""

    count: int
    threshold: int
    population: int


def positions(hashes: Hashes, salt: int) -> Hashes:
    """``base.ids.mix64(hash ^ salt)`` for each hash."""
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
    """``ceil(percent / 100 * population)`` in decimal arithmetic: 0.07 % of 10,000 is exactly 7."""
    exact = Decimal(repr(percent)) * population / 100
    return int(exact.to_integral_value(rounding=ROUND_CEILING))


def cut(places: Hashes, percent: float, *, floor: int = 0) -> Cut:
    """Cut ``percent`` of the eligible devices, whose positions are ``places``.

    ``floor`` is the threshold of the last wave. The new threshold is never lower, also if the
    population shrank between the two waves, because waves only grow.
    """
    if percent >= 100:
        return Cut(len(places), EVERYONE, len(places))
    return cut_at(places, wanted(percent, len(places)), floor=floor)


def cut_at(places: Hashes, count: int, *, floor: int = 0) -> Cut:
    """``cut`` after ``count`` devices, or after all devices if there are fewer."""
    population = len(places)
    count = min(count, population)
    threshold = int(np.partition(places, count - 1)[count - 1]) + 1 if count else 0
    if threshold < floor:
        threshold = floor
        count = below(places, threshold)
    return Cut(count, threshold, population)


def below(places: Hashes, threshold: int) -> int:
    """The number of positions below ``threshold``."""
    if threshold >= EVERYONE:
        return len(places)
    return int(np.count_nonzero(places < np.uint64(threshold)))
