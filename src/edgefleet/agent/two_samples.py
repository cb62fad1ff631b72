"""The test of a trial against the requests before it, which may be taken after every request.

Before the trial, ``n0`` numbers between 0 and 1 had the sum ``s0``; in it, ``n1`` have the sum
``s1``. Larger is worse: 1 for a failed or a refused request, or 1 minus the top score. The e-value
against "the mean is at most ``margin`` above that before" is universal inference (Wasserman,
Ramdas, Balakrishnan, "Universal inference", PNAS 2020) with the mixture of Jeffreys:

    E = m(s0, n0) m(s1, n1) / max L(p0; s0, n0) L(p1; s1, n1),  over all p1 <= p0 + margin

    L(p; s, n) = p^s (1 - p)^(n - s),   m(s, n) = B(s + 1/2, n - s + 1/2) / B(1/2, 1/2)

For each pair of means in the hypothesis, the ratio with *its* L in the denominator starts, at
n1 = 0, with an expectation of at most 1 and is a supermartingale in n1: L(q; x, 1) / L(p; x, 1) is
convex in x, so no distribution on [0, 1] with mean p gives it more than the coin does, which gives
it 1. E is at most that ratio. So E ever exceeds 1 / alpha with a probability of at most alpha,
however often a trial is probed (Ville). It needs requests that are independent; a client that turns
bad at the moment of the switch is not told from the release.
"""

import math
from typing import Final

_HALF: Final = 0.5
_JEFFREYS: Final = math.lgamma(1.0) - 2 * math.lgamma(_HALF)  # -log B(1/2, 1/2)
_BISECTIONS: Final = 50
_EDGE: Final = 1e-12  # from 0 and 1


def log_evidence(
    before: tuple[float, int], now: tuple[float, int], *, margin: float = 0.0
) -> float:
    """The log e-value against "the mean of ``now`` is at most ``margin`` above that of ``before``".

    Both are a sum and a number. Without numbers there is no evidence.
    """
    (s0, n0), (s1, n1) = before, now
    if not n0 or not n1 or s1 / n1 <= s0 / n0 + margin:
        return 0.0
    return _log_mixture(s0, n0) + _log_mixture(s1, n1) - _log_most_likely(before, now, margin)


def _log_mixture(total: float, count: int) -> float:
    return (
        math.lgamma(total + _HALF)
        + math.lgamma(count - total + _HALF)
        - math.lgamma(count + 1.0)
        + _JEFFREYS
    )


def _log_most_likely(before: tuple[float, int], now: tuple[float, int], margin: float) -> float:
    """The log of the largest likelihood under the hypothesis.

    The largest of all is outside of it, so this one is on its edge p1 = p0 + margin, where the log
    is concave in p0: its slope is bisected.
    """
    (s0, n0), (s1, n1) = before, now
    low, high = _EDGE, 1.0 - margin - _EDGE
    for _ in range(_BISECTIONS):
        p0 = (low + high) / 2
        p1 = p0 + margin
        slope = s0 / p0 - (n0 - s0) / (1 - p0) + s1 / p1 - (n1 - s1) / (1 - p1)
        low, high = (p0, high) if slope > 0 else (low, p0)
    p0 = (low + high) / 2
    return _log_likelihood(s0, n0, p0) + _log_likelihood(s1, n1, p0 + margin)


def _log_likelihood(total: float, count: int, mean: float) -> float:
    return total * math.log(mean) + (count - total) * math.log1p(-mean)
