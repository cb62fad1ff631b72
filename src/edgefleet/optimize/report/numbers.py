"""Figures as people read them, scales of axes, and the interval of a share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

_Z: Final = NormalDist().inv_cdf(0.975)


def size_text(size_bytes: float) -> str:
    """Such as ``11.3 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.3g} GiB"


def time_text(seconds: float) -> str:
    """Such as ``1.17 ms``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def wilson(right: int, cases: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, JASA 22:209-212)."""
    share, square = right / cases, _Z**2
    middle = (share + square / (2 * cases)) / (1 + square / cases)
    spread = share * (1 - share) / cases + square / (4 * cases**2)
    half = _Z * math.sqrt(spread) / (1 + square / cases)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values between ``low`` and ``high`` to shares of a length, 0 to 1."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], *, log: bool = False) -> "Scale":
        """A scale with a margin around ``values``, of which a logarithmic one needs positive."""
        low, high = min(values), max(values)
        if log:
            return cls(low / 1.25, high * 1.25, log=True)
        margin = (high - low) * 0.12 or max(abs(high) * 0.05, 1e-6)
        return cls(low - margin, high + margin)

    def at(self, value: float) -> float:
        """The share at which ``value`` is."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values inside of the scale, about four."""
        if self.log and len(round_ := self._log_ticks()) > 1:
            return round_
        raw = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]

    def _log_ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        all_ = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        inside = [one for one in all_ if self.low <= one <= self.high]
        while len(inside) > 5:
            inside = inside[::2]
        return inside
