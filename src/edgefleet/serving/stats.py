"""What one active release did: how often, how fast, how sure of itself."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from edgefleet.protocol.serving import LiveStats
from edgefleet.serving.runtime import Tensor

Scores = Literal["probabilities", "logits"]

_STEPS: Final = 8  # buckets an octave: a quantile is off by at most an eighth
_OCTAVES: Final = 27  # up to 9 minutes
_STATM: Final = Path("/proc/self/statm")
_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") >> 10


class LatencyHistogram:
    """Counts of microseconds in buckets that grow by an eighth of an octave.

    Two of them add up bucket by bucket, so figures of many devices can be merged.
    """

    def __init__(self) -> None:
        self.counts = [0] * (_STEPS * _OCTAVES)
        self.sum_us = 0

    def record(self, us: int) -> None:
        self.sum_us += us
        self.counts[bucket(us)] += 1

    def quantile_us(self, share: float) -> int:
        """The upper edge of the bucket in which ``share`` of all lie; 0 when there are none."""
        total = sum(self.counts)
        wanted = share * total
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return upper_edge_us(index)
        return 0

    def at_most(self, edges_us: Sequence[int]) -> list[int]:
        """For each edge, a power of two, how many lie below it."""
        return [sum(self.counts[: bucket(edge)]) for edge in edges_us]


class Stats:
    """Counters of one release since it was activated in this process."""

    def __init__(self) -> None:
        self.requests = 0  # reached the model, ``errors`` of them in vain
        self.errors = 0
        self.refused: Counter[str] = Counter()  # did not reach it, by error code
        self.in_flight = 0
        self.confidence_sum = 0.0
        self.confidence_count = 0
        self.latency = LatencyHistogram()

    def succeeded(self, us: int, scores: Tensor, kind: Scores) -> None:
        """Count an answered request whose ``scores`` are (batch, classes)."""
        self.requests += 1
        self.latency.record(us)
        if not scores.size:
            return
        self.confidence_sum += confidence_sum(scores, kind)
        self.confidence_count += scores.size // scores.shape[-1]

    def failed(self) -> None:
        self.requests += 1
        self.errors += 1

    def live(self) -> LiveStats:
        """The counters as the agent reads them."""
        return LiveStats(
            requests=self.requests,
            errors=self.errors,
            refused=self.refused.total(),
            confidence_sum=self.confidence_sum,
            confidence_count=self.confidence_count,
            latency_us_p50=self.latency.quantile_us(0.50),
            latency_us_p95=self.latency.quantile_us(0.95),
            in_flight=self.in_flight,
            memory_mib=memory_kib() >> 10,
        )


def confidence_sum(scores: Tensor, kind: Scores) -> float:
    """The top score of each item, added up. What is not a number counts as no confidence at all."""
    if kind == "probabilities":
        total = float(scores.max() if len(scores) == 1 else scores.max(axis=-1).sum())
    else:
        wide = scores.astype(np.float64)
        top = wide.max(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):  # softmax's top score is 1 / sum(exp(x - max))
            total = float((1.0 / np.exp(wide - top).sum(axis=-1)).sum())
    if math.isfinite(total):
        return min(max(total, 0.0), float(scores.size))
    return 0.0


def bucket(us: int) -> int:
    """The bucket of a duration: its highest four bits."""
    if us < _STEPS:
        return max(us, 0)
    octave = us.bit_length() - 4
    return min(_STEPS * octave + (us >> octave), _STEPS * _OCTAVES - 1)


def upper_edge_us(index: int) -> int:
    """The first duration beyond bucket ``index``."""
    index += 1
    if index < 2 * _STEPS:
        return index
    octave = index // _STEPS - 1
    return (index % _STEPS + _STEPS) << octave


def memory_kib() -> int:
    """Resident memory of this process."""
    return int(_STATM.read_text().split()[1]) * _PAGE_KIB
