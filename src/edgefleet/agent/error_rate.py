"""The test of a trial on its failed, or its refused, requests against the limit of the device.

It may be taken after every request. The e-value of ``errors`` of ``requests`` against a rate of at
most MAX_ERROR_RATIO (p) is the likelihood ratio of a mixture of higher rates to p:

    E = mean over q of (q / p)^errors * ((1 - q) / (1 - p))^(requests - errors)

At a rate of at most p it is ever above 1 / alpha with a probability of at most alpha, however
often a trial is probed (Ville; Robbins 1970). So a release of which 3 % of the requests fail, as
before, does not fail its trials by chance. A release of which all requests fail needs
ERROR_MIN_REQUESTS, and one of which 30 % fail about 26. Smaller rates are left to the gate of the
hub, which has many devices. ``two_samples`` compares with the previous release.
"""

import math
from typing import Final

from edgefleet.agent import limits

_RATES: Final = (0.15, 0.3, 0.6, 0.95)


def is_too_high(errors: float, requests: int, allowed: float = limits.MAX_ERROR_RATIO) -> bool:
    """True if more of the requests failed than chance at the limit explains.

    ``errors`` may be a sum of numbers from 0 to 1: the ratio is convex in each of them, so its
    expectation is at most that of a coin with the same mean. ``allowed`` is from 0 to 1.
    """
    rates = [rate for rate in _RATES if rate > allowed > 0]
    if requests < limits.ERROR_MIN_REQUESTS or errors <= allowed * requests:
        return False
    logs = [
        errors * math.log(rate / allowed)
        + (requests - errors) * math.log((1 - rate) / (1 - allowed))
        for rate in rates
    ]
    if not logs:
        return allowed <= 0
    most = max(logs)
    mean = most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))
    return mean >= -math.log(limits.ERROR_ALPHA)
