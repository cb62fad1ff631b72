"""The cost of a release for its device over minutes: memory growth, heat, throttling, battery."""

from edgefleet.agent import limits
from edgefleet.protocol.device import Scores
from edgefleet.protocol.wire import Wire

_KIB_S_PER_MIB_H = 3600 / 1024


class Board(Wire, frozen=True, kw_only=True):
    """A reading of the board's sensors. None for each that it does not have.

    ``battery_percent`` is None also while the battery is not discharging.
    """

    temperature_c: float | None = None  # of the hottest zone
    is_throttled: bool | None = None
    battery_percent: float | None = None


class Trend(Wire, frozen=True, kw_only=True):
    """Samples of a process's memory, as time and KiB, with at least ``spacing_s`` between two."""

    spacing_s: float = limits.TREND_SPACING_S
    samples: tuple[tuple[float, int], ...] = ()


class CostFigures(Wire, frozen=True, kw_only=True):
    """The figures of a full window. None for each that is not known."""

    release: str
    requests: int
    memory_mib_h: float | None = None
    temperature_c: float | None = None
    throttled: float | None = None  # share of the time
    battery_percent_h: float | None = None


class CostWindow(Wire, frozen=True, kw_only=True):
    """A time in which one process serves one release. ``process`` is its pid.

    It begins at ``since``, after the warm-up. ``first`` is the counter of requests at that time.
    """

    release: str
    process: int
    since: float
    first: int | None = None
    memory: Trend = Trend(spacing_s=limits.COST_SAMPLE_S)
    board: tuple[tuple[float, Board], ...] = ()


class CostWindows(Wire, frozen=True, kw_only=True):
    """The window that fills, the figures of the full one before it, and scores to report."""

    filling: CostWindow | None = None
    full: CostFigures | None = None
    scores: Scores | None = None


def follow(trend: Trend, now: float, kib: int) -> Trend:
    """The trend with one more sample. Of too many samples, every other one is dropped."""
    spacing_s, samples = trend.spacing_s, trend.samples
    if kib <= 0 or (samples and now - samples[-1][0] < spacing_s):
        return trend
    samples = (*samples, (now, kib))
    if len(samples) > limits.TREND_SAMPLES:
        samples, spacing_s = samples[::2], 2 * spacing_s
    return Trend(spacing_s=spacing_s, samples=samples)


def growth_mib_h(samples: tuple[tuple[float, int], ...]) -> float | None:
    """The growth in MiB an hour that three of four pairs of samples have, or exceed.

    The lower quartile of all slopes between two samples. A few steps of the allocator do not count:
    most pairs of samples before or after one step have the slope 0. None with too few samples.
    """
    if len(samples) < limits.TREND_LEAST:
        return None
    slopes = sorted(
        (kib - earlier_kib) / (at - earlier)
        for place, (earlier, earlier_kib) in enumerate(samples)
        for at, kib in samples[place + 1 :]
    )
    return slopes[len(slopes) // 4] * _KIB_S_PER_MIB_H
