"""A detector of failures that begin late: a Shiryaev-Roberts e-detector over buckets of devices.

Devices are put into buckets in the order in which they began. A test of all evidence together
forgives 33 failures in a row after 1,000 healthy devices; the detector begins a test anew at each
bucket, so what went well before cannot hide what goes wrong now.

With m devices begun in a bucket, k of them bad, and L the allowed rate:

    log R_i(t) = logaddexp(log R_(i-1)(t), log w_i) + k_i log(t / L) + (m_i - k_i) log((1-t)/(1-L))
    log M_i = logsumexp over t of (log pi(t) + log R_i(t))

Source: Shin, Ramdas, Rinaldo: "E-detectors: a nonparametric framework for sequential change
detection", 2024. There the sum bounds the average run length. Here the weights w_i of the starts
sum to at most 1, so M is at most a weighted sum of e-processes and exceeds 1 / alpha, ever and for
any bucket, with a probability of at most alpha while every rate is within the limit. A device in
trial counts as good, so no look at an unfinished bucket exceeds the final one.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.rollout.evidence.beta import log_upper
from edgefleet.rollout.limits import LATE_BUCKETS

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

EPISODE_STARTS: Final = 8.0  # buckets whose weight the starts of all episodes share
_NEAR: Final = 20  # quantiles of the prior near the limit
_NEAR_SHARE: Final = 0.75
_FAR: Final = (0.5, 0.7, 0.85, 0.95, 0.99)
_PRIOR_GOOD: Final = 4.0


@dataclass(frozen=True, slots=True)
class Grid:
    """The sizes of the buckets, fixed before the rollout begins.

    At position x a bucket has min(max(first / 2, x / 4), most / 8) devices, at least 1: small at
    first, and never more than an eighth of the devices that may be in trial at once.
    """

    first: int  # devices in trial before any is healthy
    most: int  # devices in trial at once, at most
    devices: int  # of the fleet, when the rollout began

    def size(self, position: int) -> int:
        """The size of a bucket that begins after ``position`` devices."""
        wanted = min(max(self.first / 2, position / 4), self.most / 8)
        return max(1, int(wanted), math.ceil(self.devices / LATE_BUCKETS))

    @property
    def buckets(self) -> int:
        """The number of buckets of the whole fleet without episodes."""
        return _count(self)

    def log_weight(self, number: int, episode: int) -> float:
        """The log weight of a start.

        ``number`` counts the starts by size and ``episode`` those of episodes, from 1; the other is
        0. Starts beyond the planned buckets have no weight. The weights sum to at most 1.
        """
        each = 1 / (self.buckets + EPISODE_STARTS)
        if episode:
            return math.log(each * EPISODE_STARTS * 6 / (math.pi * episode) ** 2)
        return math.log(each) if number <= self.buckets else -math.inf


@lru_cache(maxsize=256)
def _count(grid: Grid) -> int:
    position = count = 0
    while position < grid.devices:
        position += grid.size(position)
        count += 1
    return max(1, count)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of the detector. ``start`` and ``end`` are indices of buckets, both included.

    ``log_e_value`` is the highest over all prefixes; ``start`` is the begin of the test that
    contributes most to it. ``log_ratio`` is that of the mean likelihood ratio over all starts up to
    now, which is no verdict.
    """

    log_e_value: float = -math.inf
    start: int = 0
    end: int = 0
    log_ratio: float = -math.inf


NOTHING_FOUND: Final = Finding()


def detect(begun: Counts, bad: Counts, log_weights: Floats, limit: float) -> Finding:
    """The finding for ``bad`` of ``begun`` devices of each bucket, in the order of beginning."""
    if not len(begun) or not bad.any():
        return NOTHING_FOUND
    if not 0 < limit < 1:
        return Finding(math.inf, int(bad.argmax()), len(bad) - 1, math.inf) if limit <= 0 else (
            NOTHING_FOUND
        )  # fmt: skip
    rates, log_prior = _alternatives(limit)
    good = begun - bad
    gains = np.multiply.outer(bad, np.log(rates / limit))
    gains += np.multiply.outer(good, np.log((1 - rates) / (1 - limit)))
    sums = np.cumsum(gains, axis=0)
    terms = log_weights[:, None] - (sums - gains)  # of each start, before the prefix's sum
    ratios = np.logaddexp.accumulate(terms, axis=0) + sums
    evidence = np.logaddexp.reduce(ratios + log_prior, axis=1)
    end = int(evidence.argmax())
    by_start = np.logaddexp.reduce(terms[: end + 1] + sums[end] + log_prior, axis=1)
    used = np.logaddexp.reduce(log_weights)
    return Finding(
        log_e_value=float(evidence[end]),
        start=int(by_start.argmax()),
        end=end,
        log_ratio=float(evidence[-1] - used),
    )


@lru_cache(maxsize=64)
def _alternatives(limit: float) -> tuple[Floats, Floats]:
    """Rates above the limit, and their log prior.

    Quantiles of a Beta(1, 4) above the limit (Robbins' mixture, in points), and a few rates at
    which nearly every device fails, which the mixture would find late.
    """
    tail = log_upper(1.0, _PRIOR_GOOD, limit)
    # The upper tail of Beta(1, b) at x is (1 - x) ** b.
    upper = np.exp(tail) * (1 - (np.arange(_NEAR) + 0.5) / _NEAR)
    near = 1 - upper ** (1 / _PRIOR_GOOD)
    far = np.array([rate for rate in _FAR if rate > limit])
    if not len(far):
        return near, np.full(_NEAR, -math.log(_NEAR))
    shares = [_NEAR_SHARE / _NEAR] * _NEAR + [(1 - _NEAR_SHARE) / len(far)] * len(far)
    return np.concatenate([near, far]), np.log(shares)
