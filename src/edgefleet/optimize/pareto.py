"""The Pareto front of candidates, and the choice of one of them. Pure."""

from collections.abc import Sequence

from edgefleet.optimize.judgement import Judgement
from edgefleet.optimize.measurement import Measurement


def pareto_front(measured: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Those that no other beats: none is as good in everything and better in something.

    Size, latency (p50), the metric, and the bytes of a transfer count.
    """
    return tuple(one for one in measured if not any(_beats(other, one) for other in measured))


def best(judgements: Sequence[Judgement]) -> Judgement | None:
    """The one that qualifies with the greatest gain: times smaller by times faster.

    Where the fleet has measured a recipe, its times faster are those of the fleet.
    Of equal gains, the one with the fewest bytes to transfer. None: none qualifies.
    """
    good = [one for one in judgements if one.refused is None and one.candidate is not None]
    return max(good, key=_gain, default=None)


def transfer_bytes(one: Measurement) -> int:
    """The bytes that a device fetches: the difference, where it has an earlier artifact."""
    if one.delta_bytes is None:
        return one.compressed_bytes
    return min(one.delta_bytes, one.compressed_bytes)


def _gain(one: Judgement) -> tuple[float, int]:
    sent = transfer_bytes(one.candidate) if one.candidate else 0
    faster = one.in_field.faster if one.in_field else one.faster
    return round(one.smaller * faster, 3), -sent


def _beats(one: Measurement, other: Measurement) -> bool:
    mine, theirs = _costs(one), _costs(other)
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def _costs(one: Measurement) -> tuple[float, ...]:
    return (one.size_bytes, one.latency.p50_s, -one.value, transfer_bytes(one))
