"""Tests that may be looked at after every report: their error rates hold at any time of stopping.

Each keeps an e-value, the wealth of a bettor who bets against "the release is no worse than it
may be" and plays a fair or losing game while that is true. By Ville's inequality the wealth ever
reaches 1 / alpha with a chance of at most alpha then, however often and whenever one looks (Ramdas,
Gruenwald, Vovk, Shafer: "Game-theoretic statistics and safe anytime-valid inference", 2023).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from edgefleet.rollout.evidence.beta import log_upper, upper_tail

INTERVAL_ALPHA: Final = 0.05  # of the intervals that stand beside the figures
# How a bad release is thought to fail: a Beta(1, 4) above the limit. It decides how soon which rate
# is found, never how often a good release is blamed.
_PRIOR_BAD: Final = 1.0
_PRIOR_GOOD: Final = 4.0
_BISECTIONS: Final = 30  # halves [0, 1] down to 1e-9
_BET: Final = 0.75  # of what may be put at stake without risk of ruin


@lru_cache(maxsize=4096)
def log_rate_evidence(bad: int, size: int, limit: float) -> float:
    """The log e-value of ``bad`` of ``size`` against "at most ``limit`` of all are bad".

    The likelihood ratio of the rates above the limit, mixed, to the limit itself (Robbins:
    "Statistical methods related to the law of the iterated logarithm", 1970). It depends on the
    counts alone, so it is the same in whatever order reports arrive. Exact in logarithms.
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
    """A confidence interval for the rate that holds at all times at once.

    The rates that a uniform mixture over all rates has not refuted (Robbins 1970); (0, 1) without
    any device.
    """
    if size == 0:
        return 0.0, 1.0
    mixed = _log_beta(bad + 1.0, size - bad + 1.0)
    threshold = math.log(1 / alpha)

    def refuted(rate: float) -> bool:
        seen = _times_log(bad, rate) + _times_log(size - bad, 1 - rate)
        return mixed - seen >= threshold

    middle = bad / size
    low = _edge(0.0, middle, refuted(0.0), refuted) if bad else 0.0
    high = _edge(1.0, middle, refuted(1.0), refuted) if bad < size else 1.0
    return low, high


def exact_p_value(bad: int, size: int, limit: float) -> float:
    """The chance of ``bad`` or more of ``size`` at a rate of ``limit``: for one look, not more."""
    if bad <= 0:
        return 1.0
    if limit <= 0 or bad >= size:
        return max(0.0, limit) ** bad
    return upper_tail(bad, size, limit) if bad / size > limit else 1.0


@dataclass(frozen=True, slots=True)
class Bet:
    """A bettor against "the mean of these differences is at most ``allowed``".

    Differences lie in [-bound, bound]; what lies beyond is cut off. Before each one a share of the
    wealth is put on its being larger, chosen from those before it alone: mean over mean square,
    "aGRAPA" of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
    JRSS B 2024. The interval is their predictable plug-in empirical Bernstein one (theorem 2). The
    same differences in the same order always end in the same value.
    """

    allowed: float
    bound: float
    count: int = 0
    total: float = 0.0
    log_wealth: float = 0.0
    log_peak: float = 0.0  # a wealth that was ever reached is evidence for good
    squares: float = 0.0  # of the differences from the mean before each
    weights: float = 0.0
    weighted: float = 0.0
    spread: float = 0.0

    def after(self, difference: float, times: int = 1) -> "Bet":
        """The bettor after one more difference, which must be a number; or after so many alike."""
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
        """Where the mean lies, with 95 % confidence at all times at once."""
        if self.weights <= 0:
            return -self.bound, self.bound
        middle = self.weighted / self.weights
        reach = 2 * self.bound * (math.log(2 / INTERVAL_ALPHA) + self.spread) / self.weights
        return max(-self.bound, middle - reach), min(self.bound, middle + reach)


def _weight(variance: float, turn: int) -> float:
    """Of the ``turn``-th difference in the interval, by the variance seen before it."""
    wanted = math.sqrt(2 * math.log(2 / INTERVAL_ALPHA) / (variance * turn * math.log1p(turn)))
    return min(wanted, 0.5)


def e_value(log_evidence: float) -> float:
    """As a number that fits into JSON: at most 1e12."""
    return math.exp(min(log_evidence, math.log(1e12)))


def _edge(outer: float, inner: float, out: bool, refuted: Callable[[float], bool]) -> float:
    """Where refutation ends between ``outer`` and ``inner``, which is never refuted."""
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
