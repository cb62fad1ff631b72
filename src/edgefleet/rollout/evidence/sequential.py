"""Sequential tests (e-processes): their false-alarm rates hold when read after every report.

Each test keeps an e-value: the wealth of a bettor against the null hypothesis "the release is
within its limit". While the hypothesis is true, the game is fair or losing. By Ville's inequality
the probability that the wealth ever reaches 1 / alpha is then at most alpha, however often the test
is evaluated (Ramdas, Gruenwald, Vovk, Shafer: "Game-theoretic statistics and safe anytime-valid
inference", 2023).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from edgefleet.rollout.evidence.beta import log_upper, upper_tail

INTERVAL_ALPHA: Final = 0.05  # of the confidence intervals shown with the figures
# The prior of the failure rate of a bad release: a Beta(1, 4) above the limit. It affects how soon
# a bad release is detected, and never the false-alarm rate.
_PRIOR_BAD: Final = 1.0
_PRIOR_GOOD: Final = 4.0
MOST_EVIDENCE: Final = 1e12
_BISECTIONS: Final = 30  # halves [0, 1] down to 1e-9
_STAKES: Final = tuple(0.95 * step / 8 for step in range(1, 9))  # 1 could lose all wealth
_INTERVAL_STAKES: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
_UNITS: Final = 1 << 40  # fixed point: sums of integers do not depend on the order


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

    Differences are clipped to [-bound, bound]. The wealth is the mean over the stakes s of the
    products of 1 + s * (x - allowed) / (bound + allowed): the betting martingale of Waudby-Smith
    and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024, with a
    mixture of fixed stakes (their section 5.8). While the mean is at most ``allowed``, no factor
    has an expectation above 1, so the wealth ever reaches 1 / alpha with a probability of at most
    alpha. A product does not depend on the order of its factors, and all sums are of integers. So
    the same differences in any order give the same value.
    """

    allowed: float
    bound: float
    count: int = 0
    total: int = 0  # sum of the differences, in units
    squares: int = 0  # sum of their squares, in units
    logs: tuple[int, ...] = (0,) * len(_STAKES)  # by stake: the log of the product, in units

    def after(self, difference: float, times: int = 1) -> "Bet":
        """The test after ``times`` more differences of this value, which must not be NaN."""
        x = min(max(difference, -self.bound), self.bound)
        edge = (x - self.allowed) / (self.bound + self.allowed)
        return Bet(
            allowed=self.allowed,
            bound=self.bound,
            count=self.count + times,
            total=self.total + times * _units(x),
            squares=self.squares + times * _units(x * x),
            logs=tuple(
                log + times * _units(math.log1p(stake * edge))
                for log, stake in zip(self.logs, _STAKES, strict=True)
            ),
        )

    @property
    def log_wealth(self) -> float:
        return _log_mean([log / _UNITS for log in self.logs])

    @property
    def mean(self) -> float:
        return self.total / _UNITS / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the mean, valid at all times together.

        The means that neither of two mixtures rejects at half of 5 %. A mixture has the wealth
        exp(s * sum(y) - (-log(1 - s) - s) * sum(y * y)) for each stake s, with y the distance of a
        difference from the mean, as a share of 2 * ``bound``, towards the other mean (Fan, Grama,
        Liu: "Exponential inequalities for martingales with applications", EJP 2015).
        """
        return _interval(self.bound, self.count, self.total, self.squares)


@lru_cache(maxsize=1024)
def _interval(bound: float, count: int, total: int, squares: int) -> tuple[float, float]:
    """``Bet.interval``, from the sums of a bet."""
    if not count:
        return -bound, bound
    width, reject = 2 * bound, math.log(2 / INTERVAL_ALPHA)
    summed, squared = total / _UNITS, squares / _UNITS

    def refuted(mean: float) -> bool:
        first = abs(summed - count * mean) / width
        second = (squared - 2 * mean * summed + count * mean * mean) / width**2
        logs = [s * first + (math.log1p(-s) + s) * second for s in _INTERVAL_STAKES]
        return _log_mean(logs) >= reject

    middle = summed / count
    low = _edge(-bound, middle, refuted(-bound), refuted)
    high = _edge(bound, middle, refuted(bound), refuted)
    return low, high


def _units(value: float) -> int:
    return round(value * _UNITS)


def _log_mean(logs: Sequence[float]) -> float:
    """The log of the mean of numbers that are given by their logs."""
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))


def share_of(number: int) -> float:
    """The share of alpha for the k-th of a series of tests, from 1. The sum over all is 1."""
    return 6 / (math.pi * number) ** 2


def e_value(log_evidence: float) -> float:
    """The e-value, at most MOST_EVIDENCE so that it fits into JSON."""
    return math.exp(min(log_evidence, math.log(MOST_EVIDENCE)))


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
