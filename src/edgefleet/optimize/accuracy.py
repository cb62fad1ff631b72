"""Decides whether a candidate keeps enough of its baseline's metric. Pure.

The rule, with ``keep`` = 0.99, which ``docs/optimize-proof.md`` explains:

1. The same outputs as the baseline: nothing was lost.
2. The measured value is below 99 % of the baseline's: refused. As ACCURACY_LOST if the paired test
   excludes that it is chance, else as ACCURACY_UNPROVEN.
3. The interval does not exclude a loss of twice the allowed one (2 %): ACCURACY_UNPROVEN.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgefleet.base.errors import InternalError
from edgefleet.base.texts import counted
from edgefleet.optimize.judgement import AccuracyProof, Interval, Refusal
from edgefleet.optimize.measurement import Measurement
from edgefleet.optimize.paired import (
    Floats,
    mcnemar_p,
    mean_interval,
    percentile_interval,
    share_interval,
    smallest_mean_loss,
    smallest_resampled_loss,
    smallest_share_loss,
)

EXCLUDED: Final = 2.0  # times the allowed loss: a loss that the data must exclude
LEAST_CASES: Final = 30  # of a bootstrap: fewer are no sample of what may happen
_SLACK: Final = 1e-9  # of shares, for rounding
_NO_EVIDENCE: Final = "The measurement has neither scores of cases nor values of resamples."


@dataclass(frozen=True, slots=True)
class AccuracyVerdict:
    """``refused`` is None if enough is kept. ``text`` is a sentence with the figures."""

    proof: AccuracyProof | None
    refused: Refusal | None
    text: str


def judge_accuracy(baseline: Measurement, candidate: Measurement, keep: float) -> AccuracyVerdict:
    """Compare the metrics by the rule above.

    Raises InternalError if the two were not measured on the same cases.
    """
    if not math.isfinite(baseline.value):
        return AccuracyVerdict(
            None,
            Refusal.ACCURACY_UNPROVEN,
            f"The metric of the baseline is {baseline.value}, not a number that can be kept.",
        )
    if not (math.isfinite(candidate.value) and np.isfinite(candidate.cases).all()):
        return AccuracyVerdict(
            None,
            Refusal.ACCURACY_LOST,
            f"The metric is {candidate.value}, not a number: the candidate gives answers that are "
            "not finite.",
        )
    proof, cases = _proof(baseline, candidate)
    if baseline.outputs_digest == candidate.outputs_digest:
        return AccuracyVerdict(proof, None, "All outputs are those of the baseline.")
    if proof is None:
        return AccuracyVerdict(None, Refusal.ACCURACY_UNPROVEN, _NO_EVIDENCE)
    refused = refusal(proof, keep, cases, is_shares=_is_right_wrong(baseline, candidate))
    return AccuracyVerdict(proof, refused, _text(proof, keep, cases, refused))


def kept_share(baseline: float, value: float) -> float:
    """The share of the baseline's metric that ``value`` keeps. Above 1: it is better.

    Errors are negative values (metrics are larger-is-better): then an error that is 1/0.99 times
    the baseline's keeps 99 %. A baseline without any error keeps nothing of itself if there is one.
    """
    if baseline > 0:
        return value / baseline
    if value >= 0:
        return 1.0 if baseline == 0 else math.inf
    return baseline / value


def _is_right_wrong(baseline: Measurement, candidate: Measurement) -> bool:
    """Whether all scores are 0 or 1."""
    scores = {*baseline.cases, *candidate.cases}
    return bool(scores) and scores <= {0.0, 1.0}


def _proof(baseline: Measurement, candidate: Measurement) -> tuple[AccuracyProof | None, int]:
    """The paired comparison, and the number of cases."""
    one, other = baseline.resampled, candidate.resampled
    if baseline.cases or candidate.cases:
        _check_same(len(baseline.cases), len(candidate.cases), "cases")
        before, after = np.array(baseline.cases), np.array(candidate.cases)
        count = len(before)
        if _is_right_wrong(baseline, candidate):
            return _share_proof(baseline, candidate, before, after), count
        interval, p_value = mean_interval(before, after), None
        smallest = smallest_mean_loss(before, after)
    elif one is not None and other is not None:
        _check_same(one.cases, other.cases, "cases")
        _check_same(len(one.values), len(other.values), "resamples")
        differences = np.array(other.values) - np.array(one.values)
        count = one.cases
        if len(differences) < 2 or not np.isfinite(differences).all():
            return None, count
        interval, p_value = percentile_interval(differences), None
        smallest = smallest_resampled_loss(differences)
    else:
        return None, 0
    return _made(baseline, candidate, interval, p_value, smallest), count


def _share_proof(
    baseline: Measurement, candidate: Measurement, before: Floats, after: Floats
) -> AccuracyProof:
    losses, gains = int((before > after).sum()), int((after > before).sum())
    return _made(
        baseline,
        candidate,
        share_interval(losses, gains, len(before)),
        mcnemar_p(losses, gains),
        smallest_share_loss(losses, gains, len(before)),
    )


def _made(
    baseline: Measurement,
    candidate: Measurement,
    interval: Interval,
    p_value: float | None,
    smallest: float,
) -> AccuracyProof:
    return AccuracyProof(
        baseline=baseline.value,
        candidate=candidate.value,
        difference=interval,
        p_value=p_value,
        smallest_loss=smallest,
    )


def _check_same(one: int, other: int, what: str) -> None:
    if one != other:
        raise InternalError(
            "internal",
            f"The baseline was measured on {one} {what}, the candidate on {other}.",
            field="candidate",
        )


def refusal(proof: AccuracyProof, keep: float, cases: int, *, is_shares: bool) -> Refusal | None:
    """The verdict by the rules 2 and 3. ``is_shares``: the scores of cases are right or wrong."""
    least = kept_share(proof.baseline, proof.baseline + proof.difference.low)
    if proof.baseline == 0 and is_shares:
        return Refusal.ACCURACY_UNPROVEN
    if kept_share(proof.baseline, proof.candidate) < keep - _SLACK:
        is_shown = _is_loss_shown(proof)
        return Refusal.ACCURACY_LOST if is_shown else Refusal.ACCURACY_UNPROVEN
    if least < _excluded(keep) - _SLACK or (cases < LEAST_CASES and not is_shares):
        return Refusal.ACCURACY_UNPROVEN
    return None


def _is_loss_shown(proof: AccuracyProof) -> bool:
    """Whether chance does not explain the loss: by McNemar's test, else by the interval."""
    if proof.p_value is None:
        return proof.difference.high < 0
    return proof.candidate < proof.baseline and proof.p_value < 1 - proof.difference.level


def _excluded(keep: float) -> float:
    """The share of the metric that must be kept at the low end of the interval."""
    return 1 - EXCLUDED * (1 - keep)


def _text(proof: AccuracyProof, keep: float, cases: int, refused: Refusal | None) -> str:
    kept = kept_share(proof.baseline, proof.candidate)
    low = kept_share(proof.baseline, proof.baseline + proof.difference.low)
    high = kept_share(proof.baseline, proof.baseline + proof.difference.high)
    found = (
        f"{kept:.2%} of the metric {proof.baseline:.4f} is kept on {counted(cases, 'case')} "
        f"({proof.difference.level:.0%} interval {low:.2%} to {high:.2%})"
    )
    p_value = "" if proof.p_value is None else f", p = {proof.p_value:.2g}"
    seen = f"the smallest loss that these cases would have shown is {proof.smallest_loss:.4f}"
    match refused:
        case Refusal.ACCURACY_LOST:
            return f"Only {found}{p_value}; {keep:.2%} is required."
        case Refusal.ACCURACY_UNPROVEN if proof.baseline == 0:
            return (
                f"The baseline is right in none of {counted(cases, 'case')}: nothing can be kept."
            )
        case Refusal.ACCURACY_UNPROVEN if kept < keep - _SLACK:
            return f"Only {found}; {keep:.2%} is required. It may be chance: {seen}."
        case Refusal.ACCURACY_UNPROVEN if cases < LEAST_CASES:
            return f"{found}; a bootstrap needs at least {LEAST_CASES} cases."
        case Refusal.ACCURACY_UNPROVEN:
            return (
                f"{found}; the cases must exclude a loss to {_excluded(keep):.2%}. Give more "
                f"evaluation cases: {seen}."
            )
        case None if low < keep:
            return f"{found}; a loss below {keep:.2%} is not excluded."
        case _:
            return f"{found}."
