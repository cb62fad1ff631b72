"""Statistics of the active release: requests, latency and confidence."""

import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, Literal

import numpy as np

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.bins import (
    CLASS_BINS,
    CONFIDENCE_BINS,
    INPUT_BINS,
    LATENCY_BUCKETS,
    bucket,
    upper_edge_us,
)
from edgefleet.protocol.device import REFUSAL_CHARS, Sketches
from edgefleet.protocol.serving import LiveStats
from edgefleet.serving.bf16 import BF16, widened
from edgefleet.serving.durations import Durations
from edgefleet.serving.limits import INPUT_SAMPLE, SKETCH_BUCKETS
from edgefleet.serving.refused import example_of, kind_of
from edgefleet.serving.runtime import Tensor

Scores = Literal["probabilities", "logits"]

_FEW_SCORES: Final = 32
_SAMPLED_RUNS: Final = 32  # of neighbouring values, in a sample
_STATM: Final = Path("/proc/self/statm")
_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") >> 10


class LatencyHistogram:
    """Counts durations in microseconds, in 8 buckets per octave.

    Histograms of several devices are added bucket by bucket.
    """

    def __init__(self) -> None:
        self.counts = [0] * LATENCY_BUCKETS
        self.sum_us = 0

    def record(self, us: int) -> None:
        self.record_all((us,))

    def record_all(self, durations_us: Sequence[int]) -> None:
        counts = self.counts
        self.sum_us += sum(durations_us)
        for us in durations_us:
            counts[bucket(us)] += 1

    def quantile_us(self, share: float) -> int:
        """The upper edge of the bucket with quantile ``share``. 0 if nothing is counted."""
        total = sum(self.counts)
        wanted = share * total
        counted = 0
        for index, count in enumerate(self.counts):
            counted += count
            if count and counted >= wanted:
                return upper_edge_us(index)
        return 0

    def at_most(self, edges_us: Sequence[int]) -> list[int]:
        """For each edge (a power of two), the number of durations below it."""
        return [sum(self.counts[: bucket(edge)]) for edge in edges_us]


class Stats:
    """Counters of one release since its activation in this process."""

    def __init__(self) -> None:
        self.requests = 0  # requests that reached the model, including ``errors``
        self.errors = 0
        self.refused: Counter[str] = Counter()  # requests refused before the model, by ``Refusal``
        self._examples: dict[str, str] = {}  # by ``Refusal``, of the first request of its kind
        self.cpu_ns = 0  # of the inferences alone, see ``RunClock``
        self._came: dict[object, float] = {}  # the time of each request in flight, in order
        self.answered_at: float | None = None  # the last successful answer
        self.confidence_sum = 0.0
        self.confidence_count = 0
        self.latency = LatencyHistogram()
        self.durations = Durations()
        self.confidence = [0] * CONFIDENCE_BINS
        self.classes = [0] * CLASS_BINS
        self.inputs = [0] * INPUT_BINS

    def succeeded(self, us: int, first_input: Tensor | None = None) -> None:
        """Count an answered request. ``first_input`` is counted in ``inputs`` if it is numeric."""
        self.succeeded_all((us,), first_input, (1,))

    def succeeded_all(
        self, took_us: Sequence[int], first_input: Tensor | None, sizes: Sequence[int]
    ) -> None:
        """Count the answered requests of one run. ``first_input`` has their inputs in order.

        ``sizes`` are their shares of it: of one request any number, else its items.
        """
        self.requests += len(took_us)
        self.latency.record_all(took_us)
        self.answered_at = time.monotonic()
        if first_input is not None and first_input.size:
            if first_input.dtype.kind in "fiu":
                means = _means(first_input, sizes)
            elif first_input.dtype == BF16:
                means = _means_of_bf16(first_input, sizes)
            else:
                return
            bins = self.inputs
            for mean in means:
                bins[input_bin(mean)] += 1

    def scored(self, scores: Tensor, kind: Scores) -> None:
        """Count the ``scores`` of an answered request, of shape (batch, classes).

        Scores that are not finite count as an error.
        """
        self.scored_all(scores, kind, (1,))

    def scored_all(self, scores: Tensor, kind: Scores, sizes: Sequence[int]) -> list[Sequence[int]]:
        """Count the scores of the requests of one run. Returns the top classes of each request.

        ``sizes`` are the shares of the requests, as in ``succeeded_all``.
        """
        if not scores.size:
            return []
        confidences, classes = top_scores(scores, kind)
        if len(classes) == len(sizes):
            self._scored_singly(confidences, classes)
            return [(top,) for top in classes]
        each = len(classes) // sum(sizes)
        found: list[Sequence[int]] = []
        at = 0
        for size in sizes:
            end = at + size * each
            tops = classes[at:end]
            self._scored(sum(confidences[at:end]), tops)
            found.append(tops)
            at = end
        return found

    def _scored_singly(self, confidences: Sequence[float], classes: Sequence[int]) -> None:
        """Count requests of one item each, as ``_scored`` does."""
        bins, tops = self.confidence, self.classes
        total = sum(confidences)
        usual = math.isfinite(total) and min(confidences) >= 0.0 and max(confidences) < 1.0
        if usual:  # almost always
            for confidence in confidences:
                bins[int(confidence * CONFIDENCE_BINS)] += 1
            for top in classes:
                tops[top % CLASS_BINS] += 1
            self.confidence_sum += total
            self.confidence_count += len(confidences)
            return
        for confidence, top in zip(confidences, classes, strict=True):
            if math.isfinite(confidence):
                within = min(max(confidence, 0.0), 1.0)
                bins[min(int(within * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)] += 1
                self.confidence_sum += within
            else:
                self.errors += 1
                continue
            self.confidence_count += 1
            tops[top % CLASS_BINS] += 1

    def _scored(self, total: float, tops: Sequence[int]) -> None:
        items = len(tops)
        if not math.isfinite(total):  # in binary form it is an answer, although of no use
            self.errors += 1
            return
        total = min(max(total, 0.0), float(items))
        self.confidence_sum += total
        self.confidence_count += items
        # A batch counts by its mean: the items of one request are correlated.
        self.confidence[min(int(total / items * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)] += items
        for top in tops:
            self.classes[top % CLASS_BINS] += 1

    def failed(self, requests: int = 1) -> None:
        self.requests += requests
        self.errors += requests

    def came(self, request: object) -> None:
        """A request runs or waits from now on, until ``went``."""
        self._came[request] = time.monotonic()

    def went(self, request: object) -> None:
        self._came.pop(request, None)

    def restarted(self) -> "Stats":
        """Counters from 0. Requests in flight stay in flight."""
        again = Stats()
        again._came = self._came
        return again

    @property
    def in_flight(self) -> int:
        """The number of requests that run or wait."""
        return len(self._came)

    def oldest_in_flight_s(self) -> float:
        """The age of the oldest request that runs or waits. 0 without one."""
        for came_at in self._came.values():
            return time.monotonic() - came_at
        return 0.0

    def refuse(self, error: EdgefleetError, release: str) -> None:
        """Count a request to ``release`` that did not reach the model."""
        kind = kind_of(error)
        self.refused[kind] += 1
        if kind not in self._examples:
            self._examples[kind] = example_of(error, release)[:REFUSAL_CHARS]

    def live(self, memory_mib: int = 0, *, process_kib: int = 0) -> LiveStats:
        """The counters for the agent. ``memory_mib`` is the memory of the release alone.

        ``process_kib`` is that of the process that runs it.
        """
        return LiveStats(
            requests=self.requests,
            errors=self.errors,
            refused=self.refused.total(),
            refusals=dict(self.refused),
            refusal_example=self._example(),
            confidence_sum=self.confidence_sum,
            confidence_count=self.confidence_count,
            latency_us_p50=self.latency.quantile_us(0.50),
            latency_us_p95=self.latency.quantile_us(0.95),
            in_flight=self.in_flight,
            oldest_in_flight_s=round(self.oldest_in_flight_s(), 3),
            last_answer_s=None
            if self.answered_at is None
            else round(time.monotonic() - self.answered_at, 3),
            cpu_s=self.cpu_ns / 1e9,
            process_kib=process_kib,
            memory_mib=memory_mib,
            sketches=Sketches(
                latency=sparse(self.latency.counts),
                confidence=tuple(self.confidence),
                classes=tuple(self.classes),
                inputs=tuple(self.inputs),
            ),
        )

    def _example(self) -> str:
        """The example of the most frequent kind that has one."""
        for kind, _ in self.refused.most_common():
            if example := self._examples.get(kind, ""):
                return example
        return ""


def input_bin(mean: float) -> int:
    """The bin of an input by its mean: quarter octaves of the absolute value, modulo 16.

    The bins need no known scale, because histograms are compared only with each other. A mean that
    is 0 or not finite is in bin 0.
    """
    try:
        quarter = math.floor(4 * math.log2(abs(mean)))
    except (ValueError, OverflowError):  # it is 0, or not finite
        return 0
    return (quarter if mean > 0 else quarter + INPUT_BINS // 2) % INPUT_BINS


def sparse(counts: Sequence[int]) -> dict[int, int]:
    """The buckets that are not 0. If there are too many, the lowest are merged into the next."""
    found = {index: count for index, count in enumerate(counts) if count}
    spare = sorted(found)[: max(0, len(found) - SKETCH_BUCKETS)]
    if spare:
        kept = min(index for index in found if index > spare[-1])
        found[kept] += sum(found.pop(index) for index in spare)
    return found


def _means(values: Tensor, sizes: Sequence[int]) -> list[float]:
    """The mean of the values of each request. Of many values it is that of a sample.

    The sample is short runs of values at equal distances, as memory is read in lines. It is the
    same places in each request of the same shape.
    """
    if sizes.count(sizes[0]) != len(sizes):
        ends = [0, *accumulate(sizes)]
        return [
            mean
            for start, end in pairwise(ends)
            for mean in _means(values[start:end], (end - start,))
        ]
    rows = values.reshape(len(sizes), -1)
    count = rows.shape[1]
    axes: int | tuple[int, ...] = 1
    if count > INPUT_SAMPLE:
        rows = _sample(rows)
        count = INPUT_SAMPLE
        axes = (1, 2)
    totals: list[float] = np.add.reduce(rows, axis=axes, dtype=np.float64).tolist()
    return [total / count for total in totals]


def _means_of_bf16(values: Tensor, sizes: Sequence[int]) -> list[float]:
    """As ``_means``. Of a large request no more than the sample is widened."""
    if len(sizes) == 1 and values.size > INPUT_SAMPLE:
        values = _sample(values.reshape(1, -1))
    return _means(widened(values), sizes)


def _sample(rows: Tensor) -> Tensor:
    """Of each row ``_SAMPLED_RUNS`` runs of values, without a copy."""
    step = rows.shape[1] // _SAMPLED_RUNS
    runs = rows[:, : step * _SAMPLED_RUNS].reshape(len(rows), _SAMPLED_RUNS, step)
    return runs[:, :, : INPUT_SAMPLE // _SAMPLED_RUNS]


def top_scores(scores: Tensor, kind: Scores) -> tuple[list[float], list[int]]:
    """The confidence and the top class of each item. A confidence may be not finite."""
    rows = scores.reshape(-1, scores.shape[-1])
    if rows.dtype.kind == "V":
        rows = widened(rows)
    if kind == "probabilities" and rows.size <= _FEW_SCORES:  # less than a call of NumPy costs
        listed: list[list[float]] = rows.tolist()
        tops = [max(row) for row in listed]
        if math.isfinite(sum(map(sum, listed))):
            return tops, [row.index(top) for row, top in zip(listed, tops, strict=True)]
    classes: list[int] = rows.argmax(axis=1).tolist()
    if kind == "probabilities":
        return np.maximum.reduce(rows, axis=1).tolist(), classes
    wide = rows.astype(np.float64)
    top = wide.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # softmax's top score is 1 / sum(exp(x - max))
        return (1.0 / np.exp(wide - top).sum(axis=-1)).tolist(), classes


def confidence_sum(scores: Tensor, kind: Scores) -> float | None:
    """The sum of the top scores of all items. None if the sum is not finite."""
    total = sum(top_scores(scores, kind)[0])
    if math.isfinite(total):
        return min(max(total, 0.0), float(scores.size // scores.shape[-1]))
    return None


def memory_kib(pid: int | None = None) -> int:
    """Resident memory of the process (this one without ``pid``), in KiB. 0 if it has ended."""
    try:
        statm = (_STATM if pid is None else Path(f"/proc/{pid}/statm")).read_text()
    except OSError:
        return 0
    return int(statm.split()[1]) * _PAGE_KIB
