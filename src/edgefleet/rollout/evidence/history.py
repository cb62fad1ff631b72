"""The failure rate that devices have anyway, from earlier releases of the model that stood.

A trial has no control: no device makes a trial of nothing. So the failures of a release are
compared with those of the releases before it. If k of n devices failed in the last rollouts that
completed and were not taken back, the limit of failures is

    min(max(L, U(k, n)), 2 L)

with L the ``max_error_rate`` of the plan and U the upper bound of the rate by Clopper and Pearson
(Biometrika 1934) at the confidence 1 - alpha of ``alphas.HISTORY``: 99.6 % by default. A history of
less than 100 devices, or with a rate of less than half of L, does not show that devices fail
anyway, and lifts nothing.

Guarantee: U is below the true rate with a probability of at most that alpha. So a release that is
no worse than the releases before it is taken back with the probability of the other tests plus
that alpha, by the union bound, as long as this rate is at most 2 L. The limit is fixed when the
rollout is planned, and stored with it; no report of the rollout moves it.

The price is power against a release that is a little worse than those before it: with 50 of 1,000
the limit rises from 5 % to 7.1 %. The factor 2 bounds the price, and keeps a series of ever worse
releases from lifting the limit further and further.
"""

import math
from typing import Final

from edgefleet.rollout.evidence.beta import log_lower
from edgefleet.rollout.limits import HISTORY_DEVICES

MOST: Final = 2.0  # times the limit of the plan
LEAST: Final = 0.5  # times the limit of the plan: a lower rate lifts nothing
_BISECTIONS: Final = 40


def upper_bound(bad: int, size: int, alpha: float) -> float:
    """The rate at which ``bad`` or fewer of ``size`` have a probability of ``alpha``."""
    if bad >= size:
        return 1.0
    low, high = bad / size, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        # P(X <= bad) of the binomial is I_(1 - rate)(size - bad, bad + 1).
        if log_lower(size - bad, bad + 1, 1 - middle) > math.log(alpha):
            low = middle
        else:
            high = middle
    return high


def lifted(bad: int, size: int, limit: float, alpha: float) -> float:
    """The limit of failures: see the module. ``limit`` is that of the plan."""
    if size < HISTORY_DEVICES or bad < LEAST * limit * size:
        return limit
    return min(max(limit, upper_bound(bad, size, alpha)), MOST * limit, 1.0)
