"""Histograms of many devices, added up. The bins are those of ``protocol.device.Sketches``."""

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
    """A running sum of sketches, some kilobytes however many devices send theirs."""

    __slots__ = ("classes", "confidence", "inputs", "latency")

    def __init__(self) -> None:
        self.latency = [0] * LATENCY_BUCKETS
        self.confidence = [0] * CONFIDENCE_BINS
        self.classes = [0] * CLASS_BINS
        self.inputs = [0] * INPUT_BINS

    def add(self, said: Sketches, *, times: int = 1) -> None:
        """Count ``said``, of so many devices that say the same."""
        for bucket, count in said.latency.items():
            self.latency[bucket] += times * count
        _add(self.confidence, said.confidence, times)
        _add(self.classes, said.classes, times)
        _add(self.inputs, said.inputs, times)

    def latency_us(self, share: float) -> int | None:
        """The upper edge of the bucket in which ``share`` of all requests lie."""
        wanted = share * sum(self.latency)
        seen = 0
        for bucket, count in enumerate(self.latency):
            seen += count
            if count and seen >= wanted:
                return upper_edge_us(bucket)
        return None


def told(counts: Sequence[int]) -> tuple[int, ...]:
    """For the record: nothing where nothing was counted."""
    return tuple(counts) if any(counts) else ()


def _add(sums: list[int], counts: Sequence[int], times: int) -> None:
    for place, count in enumerate(counts):
        sums[place] += times * count
