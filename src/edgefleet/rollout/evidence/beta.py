"""Tails of the beta and binomial distributions, exact in logarithms up to millions of devices."""

import math
from typing import Final

_FRACTION_TERMS: Final = 10_000
_TINY: Final = 1e-300


def log_upper(a: float, b: float, x: float) -> float:
    """The log probability that a Beta(a, b) variable is above ``x``, for 0 < x < 1."""
    if x < (a + 1) / (a + b + 2):
        return math.log1p(-math.exp(min(log_lower(a, b, x), -1e-16)))
    return log_lower(b, a, 1 - x)


def log_lower(a: float, b: float, x: float) -> float:
    """The logarithm of I_x(a, b), the regularised incomplete beta function, for 0 < x < 1.

    Lentz's method on its continued fraction (Abramowitz and Stegun 26.5.8), which converges fast
    for x below (a + 1) / (a + b + 2).
    """
    front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    return front + math.log(_fraction(a, b, x)) - math.log(a)


def upper_tail(bad: int, size: int, rate: float) -> float:
    """P(X >= bad) for X ~ Binomial(size, rate), 0 < bad < size and ``rate`` <= bad / size.

    It equals I_rate(bad, size - bad + 1).
    """
    return math.exp(log_lower(bad, size - bad + 1, rate)) if rate > 0 else 0.0


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _FRACTION_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        value *= d * c
        if abs(d * c - 1.0) < 1e-14:
            return value
    msg = f"the tail of Beta({a:g}, {b:g}) at {x:g} did not converge"
    raise ArithmeticError(msg)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
