"""How often the gate on accuracy passes a candidate: exact, over all outcomes of its cases."""

from math import ceil, sqrt

import numpy as np
from scipy import stats

from edgefleet.optimize.accuracy import refusal
from edgefleet.optimize.judgement import AccuracyProof
from edgefleet.optimize.paired import mcnemar_p, share_interval, smallest_share_loss


def passes(losses: int, gains: int, cases: int, right: int, keep: float = 0.99) -> bool:
    value = right / cases
    proof = AccuracyProof(
        baseline=value,
        candidate=value + (gains - losses) / cases,
        difference=share_interval(losses, gains, cases),
        p_value=mcnemar_p(losses, gains),
        smallest_loss=smallest_share_loss(losses, gains, cases),
    )
    return refusal(proof, keep, cases, is_shares=True) is None


def chance_of_pass(cases: int, kept: float, *, value: float = 0.98, noise: float = 0.005) -> float:
    """For a candidate that truly keeps ``kept`` of ``value``.

    Besides its loss, it gains and loses ``noise`` of the cases, as rounding does.
    """
    lost, gained = noise + value * (1 - kept), noise
    total = 0.0
    for gains in _likely(cases, gained):
        least, most = -1, cases  # the passes of one number of gains have the fewest losses
        while most - least > 1:
            middle = (least + most) // 2
            if passes(middle, gains, cases, round(value * cases)):
                least = middle
            else:
                most = middle
        given = stats.binom.cdf(least, cases - gains, lost / (1 - gained)) if least >= 0 else 0.0
        total += float(stats.binom.pmf(gains, cases, gained) * given)
    return total


def _likely(cases: int, share: float) -> np.ndarray:
    spread = ceil(7 * sqrt(cases * share) + 7)
    middle = round(cases * share)
    return np.arange(max(0, middle - spread), min(cases, middle + spread) + 1)
