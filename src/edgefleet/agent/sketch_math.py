"""Sums and differences of sketches, bin by bin."""

from collections.abc import Sequence
from operator import add
from typing import Final

from edgefleet.agent import limits
from edgefleet.protocol.device import Sketches

_EMPTY: Final = Sketches()


def plus(one: Sketches, other: Sketches) -> Sketches:
    if other == _EMPTY and len(one.latency) <= limits.LATENCY_BUCKETS:
        return one
    latency = dict(one.latency)
    for bucket, count in other.latency.items():
        latency[bucket] = latency.get(bucket, 0) + count
    return Sketches(
        latency=bounded(latency),
        confidence=_added(one.confidence, other.confidence),
        classes=_added(one.classes, other.classes),
        inputs=_added(one.inputs, other.inputs),
    )


def minus(one: Sketches, other: Sketches) -> Sketches:
    """``one`` minus ``other``, bin by bin, but at least 0."""
    if one == _EMPTY:
        return one
    left = {bucket: count - other.latency.get(bucket, 0) for bucket, count in one.latency.items()}
    return Sketches(
        latency={bucket: count for bucket, count in left.items() if count > 0},
        confidence=_less(one.confidence, other.confidence),
        classes=_less(one.classes, other.classes),
        inputs=_less(one.inputs, other.inputs),
    )


def padded(counts: Sequence[int], length: int) -> tuple[int, ...]:
    return (*counts, *[0] * (length - len(counts)))


def bounded(latency: dict[int, int]) -> dict[int, int]:
    """At most LATENCY_BUCKETS buckets: the lowest are merged into the next one."""
    spare = sorted(latency)[: max(0, len(latency) - limits.LATENCY_BUCKETS)]
    if spare:
        kept = min(bucket for bucket in latency if bucket > spare[-1])
        latency[kept] += sum(latency.pop(bucket) for bucket in spare)
    return latency


def _added(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(map(add, padded(one, len(other)), padded(other, len(one))))


def _less(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    pairs = zip(one, padded(other, len(one)), strict=False)
    return tuple([a - b if a > b else 0 for a, b in pairs])
