"""Judges candidates against their baseline: as good, inside the budget, and smaller or faster.

Pure: measurements in, judgements out. ``docs/optimize-proof.md`` has the rules in plain words.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from edgefleet.base.errors import EdgefleetError, InternalError
from edgefleet.optimize.accuracy import AccuracyVerdict, judge_accuracy
from edgefleet.optimize.judgement import Judgement, Refusal
from edgefleet.optimize.measurement import Budget, Measurement
from edgefleet.protocol.wire import encode

SIZE_MARGIN: Final = 1.02  # times: a smaller difference of sizes is none
SPEED_MARGIN: Final = 1.05  # times, by p50 and by p10: a smaller one of latencies is noise
SAME_SIZE: Final = 1.05  # times: candidates that are of one size
CLEARLY_FASTER: Final = 1.2  # times, by p50 and by p10, of one candidate over another
_UNMEASURED: Final[Mapping[str, Refusal]] = MappingProxyType(
    {"training_missing": Refusal.NOT_TRAINED, "operators_unmapped": Refusal.NOT_MAPPED}
)
_LEAST_S: Final = 1e-9
_MIB: Final = 1 << 20


def judge(baseline: Measurement, candidate: Measurement, budget: Budget) -> Judgement:
    """The verdict on one candidate by itself. The first refusal in the order of ``Refusal`` holds.

    Raises InternalError if the two were not measured on the same cases or at the same batch.
    """
    if baseline.batch != candidate.batch:
        raise InternalError(
            "internal",
            f"The baseline was measured at batch {baseline.batch}, the candidate at "
            f"{candidate.batch}.",
            field="candidate.batch",
        )
    accuracy = judge_accuracy(baseline, candidate, budget.keep)
    refused, text = _first_refusal(baseline, candidate, budget, accuracy)
    return Judgement(
        candidate=candidate,
        accuracy=accuracy.proof,
        smaller=max(1, baseline.size_bytes) / max(1, candidate.size_bytes),
        faster=_ratios(baseline, candidate)[0] if budget.judges_speed else 1.0,
        refused=refused,
        text=text or f"{accuracy.text} {_gains(baseline, candidate, budget)}",
    )


def judge_all(
    baseline: Measurement, candidates: Iterable[Measurement], budget: Budget
) -> tuple[Judgement, ...]:
    """The verdicts on candidates for one profile, in their order; the order changes none.

    Of candidates with the same bytes the one with the simplest recipe is judged, and the others are
    IDENTICAL. NOT_FASTER: no faster than the baseline, where another that qualifies has its size
    and is clearly faster than both.
    """
    measured = tuple(candidates)
    firsts = _firsts(measured)
    alone = [
        _identical(baseline, one, budget, firsts[_bytes(one)])
        if one is not firsts[_bytes(one)]
        else judge(baseline, one, budget)
        for one in measured
    ]
    if not budget.judges_speed:
        return tuple(alone)
    good = [one.candidate for one in alone if one.refused is None and one.candidate is not None]
    return tuple(_against_others(baseline, one, good) for one in alone)


def not_measured(error: EdgefleetError) -> Judgement:
    """The verdict on a candidate that could not be made, or not run."""
    return Judgement(
        candidate=None,
        accuracy=None,
        smaller=0.0,
        faster=0.0,
        refused=_UNMEASURED.get(error.code, Refusal.NOT_BUILT),
        text=error.message,
    )


def _first_refusal(
    baseline: Measurement, candidate: Measurement, budget: Budget, accuracy: AccuracyVerdict
) -> tuple[Refusal | None, str]:
    memory, size, latency = budget.memory_bytes, budget.size_bytes, budget.latency_s
    p50, p10 = _ratios(baseline, candidate)
    took = candidate.latency.p50_s
    if _bytes(candidate) == _bytes(baseline):
        return Refusal.IDENTICAL, "The file has the same bytes as the baseline."
    if memory is not None and candidate.peak_memory_bytes > memory:
        return Refusal.OVER_MEMORY, (
            f"It needs {candidate.peak_memory_bytes / _MIB:.1f} MiB of memory; "
            f"{memory / _MIB:.1f} MiB are allowed."
        )
    if size is not None and candidate.size_bytes > size:
        return Refusal.OVER_SIZE, (
            f"It has {candidate.size_bytes:,} bytes; {size:,} bytes are allowed."
        )
    if accuracy.refused is not None:
        return accuracy.refused, accuracy.text
    if budget.judges_speed and latency is not None and took > latency:
        return Refusal.OVER_LATENCY, (
            f"A batch of {candidate.batch} takes {_ms(took)} (p50); {_ms(latency)} are allowed."
        )
    if budget.judges_speed and max(p50, p10) * SPEED_MARGIN < 1:
        return Refusal.SLOWER, (
            f"A batch of {candidate.batch} takes {_ms(took)} (p50), on the baseline "
            f"{_ms(baseline.latency.p50_s)}: {p50:.2f} times the speed (p10: {p10:.2f} times)."
        )
    if not _is_better(baseline, candidate, budget):
        wanted = "neither smaller nor faster" if budget.judges_speed else "not smaller"
        return Refusal.NOT_BETTER, f"It is {wanted}: {_gains(baseline, candidate, budget)}"
    return None, ""


def _is_better(baseline: Measurement, candidate: Measurement, budget: Budget) -> bool:
    return (
        baseline.size_bytes >= candidate.size_bytes * SIZE_MARGIN
        or baseline.compressed_bytes >= candidate.compressed_bytes * SIZE_MARGIN
        or (budget.judges_speed and _is_faster(baseline, candidate, SPEED_MARGIN))
    )


def _gains(baseline: Measurement, candidate: Measurement, budget: Budget) -> str:
    p50, p10 = _ratios(baseline, candidate)
    smaller = max(1, baseline.size_bytes) / max(1, candidate.size_bytes)
    transfer = max(1, baseline.compressed_bytes) / max(1, candidate.compressed_bytes)
    size = f"{smaller:.2f} times smaller ({transfer:.2f} times as a transfer)"
    if not budget.judges_speed:
        return f"{size}. Its speed on the profile's hardware was not measured."
    return f"{size}, {p50:.2f} times the speed (p10: {p10:.2f} times)."


def _against_others(
    baseline: Measurement, one: Judgement, good: Sequence[Measurement]
) -> Judgement:
    """NOT_FASTER, where another candidate shows that the size can be had with more speed."""
    mine = one.candidate
    if mine is None or one.refused is not None or _is_faster(baseline, mine, SPEED_MARGIN):
        return one
    better = [
        other
        for other in good
        if _is_faster(baseline, other, SPEED_MARGIN)
        and _is_faster(mine, other, CLEARLY_FASTER)
        and _is_same_size(mine, other)
    ]
    if not better:
        return one
    best = min(better, key=lambda other: (other.latency.p50_s, _order(other)))
    return replace(
        one,
        refused=Refusal.NOT_FASTER,
        text=(
            f"A batch of {mine.batch} takes {_ms(mine.latency.p50_s)} (p50), as on the baseline "
            f"({_ms(baseline.latency.p50_s)}); {best.recipe.name} has the same size and takes "
            f"{_ms(best.latency.p50_s)}."
        ),
    )


def _identical(
    baseline: Measurement, candidate: Measurement, budget: Budget, first: Measurement
) -> Judgement:
    return replace(
        judge(baseline, candidate, budget),
        refused=Refusal.IDENTICAL,
        text=f"The file has the same bytes as that of {first.recipe.name}.",
    )


def _firsts(candidates: Iterable[Measurement]) -> dict[tuple[str, str], Measurement]:
    """The candidate that stands for all with its bytes."""
    firsts: dict[tuple[str, str], Measurement] = {}
    for one in sorted(candidates, key=_order):
        firsts.setdefault(_bytes(one), one)
    return firsts


def _bytes(measurement: Measurement) -> tuple[str, str]:
    return measurement.sha256, measurement.recipe.runtime


def _order(measurement: Measurement) -> tuple[int, int, bytes]:
    """The simplest recipe first, then any order that depends on the measurement alone."""
    recipe = encode(measurement.recipe)
    return len(measurement.recipe.steps), len(recipe), recipe + encode(measurement)


def _ratios(slow: Measurement, fast: Measurement) -> tuple[float, float]:
    """How many times faster the second is, by p50 and by p10."""
    one, other = slow.latency, fast.latency
    return (
        max(one.p50_s, _LEAST_S) / max(other.p50_s, _LEAST_S),
        max(one.p10_s, _LEAST_S) / max(other.p10_s, _LEAST_S),
    )


def _is_faster(slow: Measurement, fast: Measurement, margin: float) -> bool:
    return min(_ratios(slow, fast)) >= margin


def _is_same_size(one: Measurement, other: Measurement) -> bool:
    return max(one.size_bytes, other.size_bytes) <= SAME_SIZE * min(
        one.size_bytes, other.size_bytes
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1_000:.3g} ms"
