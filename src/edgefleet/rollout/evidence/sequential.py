"""Sequential tests (e-processes): their false-alarm rates hold when read after every report.

Each test keeps an e-value: the wealth of a bettor against the null hypothesis "the release is
within its limit". While the hypothesis is true, the game is fair or losing. By Ville's inequality
the probability that the wealth ever reaches 1 / alpha is then at most alpha, however often the test
is evaluated (Ramdas, Gruenwald, Vovk, Shafer: "Game-theoretic statistics and safe anytime-valid
inference", 2023).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from edgefleet.rollout.evidence.beta import log_upper, upper_tail

INTERVAL_ALPHA: Final = 0.05  # of the confidence intervals shown with the figures
# The prior of the failure rate of a bad release: a Beta(1, 4) above the limit. It affects how soon
# a bad release is detected, and never the false-alarm rate.
_PRIOR_BAD: Final = 1.0
_PRIOR_GOOD: Final = 4.0
_BISECTIONS: Final = 30  # halves [0, 1] down to 1e-9
_BET: Final = 0.75  # share of the largest stake that cannot lose all wealth


@lru_cache(maxsize=4096)
def log_rate_evidence(bad: int, size: int, limit: float) -> float:
    """The log e-value of ``bad`` of ``size`` devices against a rate of at most ``limit``.

    The likelihood ratio of a mixture of the rates above the limit to the limit itself (Robbins:
    "Statistical methods related to the law of the iterated logarithm", 1970). It depends only on
    the counts, so the order of the reports does not matter. Exact in logarithms.
    """
    if not 0 < limit < 1:
        return math.inf if limit <= 0 and bad else 0.0
    if size == 0:
        return 0.0
    good = size - bad
    return (
        _log_beta(bad + _PRIOR_BAD, good + _PRIOR_GOOD)
        + log_upper(bad + _PRIOR_BAD, good + _PRIOR_GOOD, limit)
        - _log_beta(_PRIOR_BAD, _PRIOR_GOOD)
        - log_upper(_PRIOR_BAD, _PRIOR_GOOD, limit)
        - bad * math.log(limit)
        - good * math.log1p(-limit)
    )


@lru_cache(maxsize=1024)
def rate_interval(bad: int, size: int, alpha: float = INTERVAL_ALPHA) -> tuple[float, float]:
    """A confidence sequence for the rate: one interval that is valid at all times together.

    The rates that a uniform mixture over all rates has not rejected (Robbins 1970). Returns (0, 1)
    for a ``size`` of 0.
    """
    if size == 0:
        return 0.0, 1.0
    mixed = _log_beta(bad + 1.0, size - bad + 1.0)
    threshold = math.log(1 / alpha)

    def refuted(rate: float) -> bool:
        likelihood = _times_log(bad, rate) + _times_log(size - bad, 1 - rate)
        return mixed - likelihood >= threshold

    middle = bad / size
    low = _edge(0.0, middle, refuted(0.0), refuted) if bad else 0.0
    high = _edge(1.0, middle, refuted(1.0), refuted) if bad < size else 1.0
    return low, high


def exact_p_value(bad: int, size: int, limit: float) -> float:
    """Probability of ``bad`` or more of ``size`` at rate ``limit``. For one evaluation only."""
    if bad <= 0:
        return 1.0
    if limit <= 0 or bad >= size:
        return max(0.0, limit) ** bad
    return upper_tail(bad, size, limit) if bad / size > limit else 1.0


@dataclass(frozen=True, slots=True)
class Bet:
    """A test by betting against "the mean of these differences is at most ``allowed``".

    Differences are clipped to [-bound, bound]. Before each difference the test bets a share of its
    wealth that the difference is larger than ``allowed``. The share depends only on earlier
    differences: mean over mean square, "aGRAPA" of Waudby-Smith and Ramdas, "Estimating means of
    bounded random variables by betting", JRSS B 2024. The interval is their predictable plug-in
    empirical Bernstein interval (theorem 2). The same differences in the same order always give the
    same value.
    """

    allowed: float
    bound: float
    count: int = 0
    total: float = 0.0
    log_wealth: float = 0.0
    log_peak: float = 0.0  # the highest log wealth so far: evidence once reached stays valid
    squares: float = 0.0  # sum of the squared distances of each difference from the mean before it
    weights: float = 0.0
    weighted: float = 0.0
    spread: float = 0.0

    def after(self, difference: float, times: int = 1) -> "Bet":
        """The test after ``times`` more differences of this value, which must not be NaN."""
        bound, allowed = self.bound, self.allowed
        x = min(max(difference, -bound), bound)
        count, total, squares = self.count, self.total, self.squares
        log_wealth, log_peak = self.log_wealth, self.log_peak
        weights, weighted, spread = self.weights, self.weighted, self.spread
        for _ in range(times):
            mean = total / (count + 1)  # as if a 0 had come first
            variance = ((bound / 2) ** 2 + squares) / (count + 1)
            edge = mean - allowed
            share = edge / (variance + edge * edge)
            stake = min(max(share, 0.0), _BET / (bound + allowed))
            log_wealth += math.log1p(stake * (x - allowed))
            log_peak = max(log_peak, log_wealth)
            weight = _weight(variance / (2 * bound) ** 2, count + 1)
            step = (x - mean) / (2 * bound)
            weights += weight
            weighted += weight * x
            spread += step * step * (-math.log1p(-weight) - weight)
            squares += (x - mean) ** 2
            total += x
            count += 1
        return Bet(
            allowed=allowed,
            bound=bound,
            count=count,
            total=total,
            log_wealth=log_wealth,
            log_peak=log_peak,
            squares=squares,
            weights=weights,
            weighted=weighted,
            spread=spread,
        )

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the mean, valid at all times together."""
        if self.weights <= 0:
            return -self.bound, self.bound
        middle = self.weighted / self.weights
        reach = 2 * self.bound * (math.log(2 / INTERVAL_ALPHA) + self.spread) / self.weights
        return max(-self.bound, middle - reach), min(self.bound, middle + reach)


def _weight(variance: float, turn: int) -> float:
    """Weight of the ``turn``-th difference in the interval. ``variance`` is that before it."""
    wanted = math.sqrt(2 * math.log(2 / INTERVAL_ALPHA) / (variance * turn * math.log1p(turn)))
    return min(wanted, 0.5)


def share_of(number: int) -> float:
    """The share of alpha for the k-th of a series of tests, from 1. The sum over all is 1."""
    return 6 / (math.pi * number) ** 2


def e_value(log_evidence: float) -> float:
    """The e-value, at most 1e12 so that it fits into JSON."""
    return math.exp(min(log_evidence, math.log(1e12)))


def _edge(outer: float, inner: float, out: bool, refuted: Callable[[float], bool]) -> float:
    """The boundary of rejection between ``outer`` and ``inner``. ``inner`` is never rejected."""
    if not out:
        return outer
    for _ in range(_BISECTIONS):
        middle = (outer + inner) / 2
        if refuted(middle):
            outer = middle
        else:
            inner = middle
    return outer


def _times_log(count: int, rate: float) -> float:
    if count == 0:
        return 0.0
    return count * math.log(rate) if rate > 0 else -math.inf


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
