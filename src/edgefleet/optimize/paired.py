"""Paired statistics: a baseline and a candidate on the same cases.

Pure: the resamples of a bootstrap come from a fixed seed and the number of cases, so they are the
same for every candidate. A candidate with no worse score in any case then has no worse interval.
"""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.optimize.judgement import Interval

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

LEVEL: Final = 0.95
POWER: Final = 0.8  # with which a smallest loss would have been seen
RESAMPLES: Final = 2_000
_Z: Final = NormalDist().inv_cdf(0.5 + LEVEL / 2)
_Z_POWER: Final = NormalDist().inv_cdf(POWER)
_SEED: Final = 20_140_611
_CELLS: Final = 4_000_000  # of a block of resamples
_HALVINGS: Final = 60


def mcnemar_p(losses: int, gains: int) -> float:
    """The two-sided p-value of the exact McNemar test.

    ``losses`` are cases that only the baseline answers right, ``gains`` those that only the
    candidate does. If neither model is better, losses are binomial with probability 1/2
    (McNemar 1947, Psychometrika 12:153-157; the exact form is the sign test).
    """
    discordant, fewer = int(losses) + int(gains), min(int(losses), int(gains))
    ways = total = 1
    for chosen in range(fewer):
        ways = ways * (discordant - chosen) // (chosen + 1)
        total += ways
    return min(1.0, 2 * total / (1 << discordant))


def share_interval(losses: int, gains: int, cases: int) -> Interval:
    """The interval of the difference of two shares of right answers, candidate minus baseline.

    The adjusted Wald interval of Bonett and Price (2012, Journal of Educational and Behavioral
    Statistics 37:479-488), which adds one loss and one gain. Fagerland, Lydersen and Laake (2014,
    Statistics in Medicine 33:2850-2875) recommend it. Its ends rise with gains and fall with
    losses, and it has a width even where no case differs.
    """
    size = cases + 2
    difference = (gains - losses) / size
    spread = (losses + gains + 2) / size - difference**2
    half = _Z * math.sqrt(max(0.0, spread) / size)
    return Interval(low=max(-1.0, difference - half), high=min(1.0, difference + half), level=LEVEL)


def smallest_share_loss(losses: int, gains: int, cases: int) -> float:
    """The smallest loss of the share of right answers that these cases would have shown.

    The loss that the McNemar test finds with a power of 80 % (two-sided, 5 %): the ``d`` of
    ``n = (z1 sqrt(s) + z2 sqrt(s - d^2))^2 / d^2`` (Connor 1987, Biometrics 43:207-211), with the
    share ``s`` of cases that differ. ``s`` is the observed share, and at least ``d``: each loss is
    a difference.
    """
    observed = (losses + gains) / cases

    def shows(loss: float) -> bool:
        share = max(observed, loss)
        needed = _Z * math.sqrt(share) + _Z_POWER * math.sqrt(max(0.0, share - loss**2))
        return cases * loss**2 >= needed**2

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def resample_counts(cases: int, resamples: int = RESAMPLES) -> Iterator[Counts]:
    """How often each case is in each resample, as blocks of shape [resamples, cases].

    The same for every call with the same arguments. Each row has the sum ``cases``.
    """
    rng = np.random.default_rng((_SEED, cases))
    rows = max(1, _CELLS // max(1, cases))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        chosen = rng.integers(0, cases, (size, cases)) + np.arange(size)[:, None] * cases
        counted = np.bincount(chosen.ravel(), minlength=size * cases)
        yield counted.reshape(size, cases).astype(np.int64)


def resampled(
    value: Callable[[Counts], Floats], cases: int, resamples: int = RESAMPLES
) -> tuple[float, ...]:
    """The value of a metric on each resample. ``value`` gives those of a block of counts."""
    parts = [value(counts) for counts in resample_counts(cases, resamples)]
    return tuple(np.concatenate(parts).astype(np.float64).tolist())


def percentile_interval(differences: Floats) -> Interval:
    """The percentile interval of bootstrapped differences (Efron and Tibshirani 1993, chapter 13).

    BCa is more exact in small samples, but can rank a candidate below a worse one: its percentiles
    depend on the data.
    """
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(low=float(low), high=float(high), level=LEVEL)


def mean_interval(baseline: Floats, candidate: Floats) -> Interval:
    """The bootstrapped interval of the difference of the mean scores of cases."""
    differences = candidate - baseline
    size = len(differences)
    return percentile_interval(np.array(resampled(lambda n: n @ differences / size, size)))


def smallest_mean_loss(baseline: Floats, candidate: Floats) -> float:
    """The smallest loss of the mean score that these cases would have shown.

    ``(z1 + z2) s / sqrt(n)`` with the standard deviation ``s`` of the paired differences: the
    sample size formula of the paired t-test (two-sided, 5 %, power 80 %; Lachin 1981, Controlled
    Clinical Trials 2:93-113). ``s`` is at least that of one case which loses all of its score.
    """
    size = len(baseline)
    one_case = float(np.abs(baseline).max()) / math.sqrt(size)
    spread = float((candidate - baseline).std(ddof=1)) if size > 1 else math.inf
    return (_Z + _Z_POWER) * max(spread, one_case) / math.sqrt(size)


def smallest_resampled_loss(differences: Floats) -> float:
    """Likewise for a metric of the whole set, with its bootstrapped standard error."""
    return (_Z + _Z_POWER) * float(differences.std(ddof=1))
