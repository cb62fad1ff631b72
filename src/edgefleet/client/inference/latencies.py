"""A histogram of latencies with bounded memory, and its picture as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_STEPS: Final = 64  # buckets of an octave: a value is known to within 1.6 %
_OCTAVES: Final = 40  # of microseconds: 12 days
_BAR: Final = 40
_ROWS: Final = 16


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a histogram: the latencies from ``from_us`` to below ``to_us``."""

    from_us: float
    to_us: float
    count: int


class Latencies:
    """Counts latencies in microseconds, in logarithmic buckets.

    Values below 64 us are exact; above, a bucket is at most 1.6 % wide.
    """

    def __init__(self) -> None:
        self._counts = [0] * (_STEPS * _OCTAVES)
        self.count = 0
        self.sum_us = 0
        self.min_us = 0
        self.max_us = 0

    def record(self, us: int) -> None:
        us = max(us, 0)
        self._counts[min(_bucket(us), len(self._counts) - 1)] += 1
        self.min_us = min(self.min_us, us) if self.count else us
        self.max_us = max(self.max_us, us)
        self.count += 1
        self.sum_us += us

    def mean_us(self) -> float:
        return self.sum_us / self.count if self.count else 0.0

    def quantile_us(self, share: float) -> float:
        """The smallest value that at least ``share`` of all values do not exceed. 0 without any."""
        wanted = max(1, -(-share * self.count // 1))
        counted = 0
        for index, count in enumerate(self._counts):
            counted += count
            if count and counted >= wanted:
                return min(float(_low(index + 1) - 1), float(self.max_us))
        return float(self.max_us)

    def bars(self, rows: int = _ROWS) -> tuple[Bar, ...]:
        """The buckets joined into at most ``rows`` rows of equal ratio, from first to last used."""
        used = [index for index, count in enumerate(self._counts) if count]
        if not used:
            return ()
        width = -(-(used[-1] - used[0] + 1) // rows)
        starts = range(used[0], used[-1] + 1, width)
        return tuple(
            Bar(_low(start), _low(start + width), sum(self._counts[start : start + width]))
            for start in starts
        )


def picture(bars: Sequence[Bar]) -> list[str]:
    """A line for each row: its range, a bar, its count and the share up to there."""
    if not bars:
        return []
    top = max(bar.count for bar in bars)
    total = sum(bar.count for bar in bars)
    edges = [(duration_text(bar.from_us), duration_text(bar.to_us)) for bar in bars]
    wide = max(len(text) for pair in edges for text in pair)
    counts = max(len(str(bar.count)) for bar in bars)
    lines: list[str] = []
    counted = 0
    for bar, (low, high) in zip(bars, edges, strict=True):
        counted += bar.count
        drawn = "#" * -(-bar.count * _BAR // top)
        lines.append(
            f"{low.rjust(wide)} to {high.rjust(wide)}  {drawn.ljust(_BAR)}  "
            f"{str(bar.count).rjust(counts)}  {100 * counted / total:6.2f} %"
        )
    return lines


def duration_text(us: float) -> str:
    """``1530`` as ``1.53 ms``: three digits."""
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if us >= size:
            value = us / size
            return f"{value:.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"
    return f"{us:.0f} us"


def _bucket(us: int) -> int:
    """Exact below ``_STEPS``, then ``_STEPS`` buckets for each octave."""
    if us < _STEPS:
        return us
    octave = us.bit_length() - _STEPS.bit_length()
    return (octave + 1) * _STEPS + (us >> octave) - _STEPS


def _low(index: int) -> int:
    """The smallest value of a bucket."""
    octave, step = divmod(index, _STEPS)
    if octave == 0:
        return step
    return (_STEPS + step) << (octave - 1)
