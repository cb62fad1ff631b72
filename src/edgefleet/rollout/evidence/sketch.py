"""Sums of the histograms of many devices. The bins are those of ``protocol.device.Sketches``."""

from collections.abc import Sequence

from edgefleet.protocol.bins import (
    CLASS_BINS,
    CONFIDENCE_BINS,
    INPUT_BINS,
    LATENCY_BUCKETS,
    upper_edge_us,
)
from edgefleet.protocol.device import Sketches


class Sketch:
    """A running sum of sketches. Its size does not depend on the number of devices."""

    __slots__ = ("classes", "confidence", "inputs", "latency")

    def __init__(self) -> None:
        self.latency = [0] * LATENCY_BUCKETS
        self.confidence = [0] * CONFIDENCE_BINS
        self.classes = [0] * CLASS_BINS
        self.inputs = [0] * INPUT_BINS

    def add(self, report: Sketches, *, times: int = 1) -> None:
        """Add the report of one device, or the equal reports of ``times`` devices."""
        for bucket, count in report.latency.items():
            self.latency[bucket] += times * count
        _add(self.confidence, report.confidence, times)
        _add(self.classes, report.classes, times)
        _add(self.inputs, report.inputs, times)

    def latency_us(self, share: float) -> int | None:
        """The quantile ``share`` of latency in microseconds: the upper edge of its bucket.

        None if no request was counted.
        """
        wanted = share * sum(self.latency)
        below = 0
        for bucket, count in enumerate(self.latency):
            below += count
            if count and below >= wanted:
                return upper_edge_us(bucket)
        return None


def or_nothing(counts: Sequence[int]) -> tuple[int, ...]:
    """The counts as a tuple. Empty if all counts are 0."""
    return tuple(counts) if any(counts) else ()


def _add(sums: list[int], counts: Sequence[int], times: int) -> None:
    for place, count in enumerate(counts):
        sums[place] += times * count
