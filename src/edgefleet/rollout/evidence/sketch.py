"""Sums of the histograms of many devices. The bins are those of ``protocol.device.Sketches``.

The device is the unit, not the request: a report counts as at most REPORT_WEIGHT requests. So a
device with ten million requests moves a quantile no more than one with a hundred.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from edgefleet.protocol.bins import (
    CLASS_BINS,
    CONFIDENCE_BINS,
    INPUT_BINS,
    LATENCY_BUCKETS,
    upper_edge_us,
)
from edgefleet.protocol.device import Sketches
from edgefleet.rollout.limits import REPORT_WEIGHT

_PER_REQUEST: Final = 100  # units of weight, so that a small share of a report is not lost


class Sketch:
    """A running sum of sketches. Its size does not depend on the number of devices."""

    __slots__ = ("_classes", "_confidence", "_inputs", "_latency")

    def __init__(self) -> None:
        self._latency = [0] * LATENCY_BUCKETS
        self._confidence = [0] * CONFIDENCE_BINS
        self._classes = [0] * CLASS_BINS
        self._inputs = [0] * INPUT_BINS

    def add(self, report: Sketches, *, times: int = 1) -> None:
        """Add the report of one device, or the equal reports of ``times`` devices."""
        _add(self._latency, report.latency.items(), sum(report.latency.values()), times)
        _add(self._confidence, enumerate(report.confidence), sum(report.confidence), times)
        _add(self._classes, enumerate(report.classes), sum(report.classes), times)
        _add(self._inputs, enumerate(report.inputs), sum(report.inputs), times)

    def latency_us(self, share: float) -> int | None:
        """The quantile ``share`` of latency in microseconds: the upper edge of its bucket.

        None if no request was counted.
        """
        wanted = share * sum(self._latency)
        below = 0
        for bucket, count in enumerate(self._latency):
            below += count
            if count and below >= wanted:
                return upper_edge_us(bucket)
        return None

    @property
    def confidence(self) -> tuple[int, ...]:
        return _counts(self._confidence)

    @property
    def classes(self) -> tuple[int, ...]:
        return _counts(self._classes)

    @property
    def inputs(self) -> tuple[int, ...]:
        return _counts(self._inputs)


def weight(requests: int) -> int:
    """The weight of a report with so many requests, in units."""
    return _PER_REQUEST * min(requests, REPORT_WEIGHT)


def weighed(count: int, requests: int) -> int:
    """The weight of ``count`` of the ``requests`` of a report, in units."""
    if requests <= REPORT_WEIGHT:
        return _PER_REQUEST * count
    return (2 * count * weight(requests) + requests) // (2 * requests)


def _add(sums: list[int], counts: Iterable[tuple[int, int]], total: int, times: int) -> None:
    for place, count in counts:
        sums[place] += times * weighed(count, total)


def _counts(sums: Sequence[int]) -> tuple[int, ...]:
    """The sums in requests. Empty if all are 0."""
    return tuple(round(value / _PER_REQUEST) for value in sums) if any(sums) else ()
