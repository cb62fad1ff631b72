"""The exact test of failures for a small fleet: a boundary that is planned for its size.

A fleet of up to ``SMALL_FLEET`` devices has no room for a test that may be read at any time. It
gets the smallest boundary b(1), ..., b(n) for which

    P(the failures among the first j devices reach b(j) for a j <= k) <= alpha * sqrt(k / n)

for every k, when each device fails with the probability that the plan allows. The probability is
exact, by dynamic programming over the number of failures on the paths that have not crossed. It is
alpha spending (Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika
1983) with exact binomial steps. The guarantee is that a release within its limit is rolled back
with a probability of at most alpha over the whole rollout. Devices are in the order in which they
began. A device in trial counts as good, so a crossing seen early is a crossing of the final counts
too, and every prefix may be read at every time.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

LONGEST: Final = 300  # devices that one boundary covers, if the fleet grows during the rollout
_NEVER_ALONE: Final = 2  # failures: one failure never decides


class Plan(NamedTuple):
    """From the device after ``began`` on, the boundary is planned for ``devices`` devices."""

    began: int
    devices: int


class Crossing(NamedTuple):
    """``bad`` of the first ``size`` devices failed; ``needed`` of them fail the release."""

    bad: int
    size: int
    needed: int

    @property
    def reached(self) -> bool:
        """True if the failures reach the boundary."""
        return self.bad >= self.needed


@lru_cache(maxsize=256)
def boundary(plans: tuple[Plan, ...], limit: float, alpha: float) -> tuple[int, ...]:
    """The failures among the first 1, 2, ... devices that fail the release.

    ``plans`` has one entry for each time at which the number of devices became known anew, the
    first with ``began`` 0. The probability spent before a new plan follows from the plans, so
    nothing else is stored: the probability of the paths that have crossed by then.
    """
    needed: list[int] = []
    alive = [1.0]  # probability of each number of failures, of the paths that have not crossed
    spent = 0.0
    for number, plan in enumerate(plans):
        devices = min(plan.devices, LONGEST)
        until = devices if number == len(plans) - 1 else min(devices, plans[number + 1].began)
        while len(needed) < until:
            size = len(needed) + 1
            alive = _after_one(alive, limit)
            may_spend = alpha * math.sqrt(size / devices) - spent
            least = _smallest(alive, may_spend)
            spent += sum(alive[least:])
            alive = alive[:least]
            needed.append(least)
    return tuple(needed)


def nearest_crossing(bad: Sequence[bool], needed: Sequence[int]) -> Crossing:
    """The prefix of ``bad`` that is nearest to its boundary; the first of several.

    ``bad`` has one value for each device that began, in order. A device beyond the boundary counts
    in no prefix.
    """
    failures = accumulate(map(int, bad))
    prefixes = [
        Crossing(count, size, least)
        for size, (count, least) in enumerate(zip(failures, needed, strict=False), 1)
    ]
    return min(prefixes, key=_missing, default=Crossing(0, 0, _NEVER_ALONE))


def total_spent(needed: Iterable[int], rate: float) -> float:
    """The exact probability that a release failing at ``rate`` reaches the boundary."""
    alive, crossed = [1.0], 0.0
    for least in needed:
        alive = _after_one(alive, rate)
        crossed += sum(alive[least:])
        alive = alive[:least]
    return crossed


def _missing(crossing: Crossing) -> int:
    return crossing.needed - crossing.bad


def _after_one(alive: list[float], rate: float) -> list[float]:
    """The probabilities after one more device."""
    good = [each * (1 - rate) for each in alive] + [0.0]
    for failures, each in enumerate(alive, 1):
        good[failures] += each * rate
    return good


def _smallest(alive: list[float], may_spend: float) -> int:
    """The smallest number of failures whose paths cost at most ``may_spend``."""
    least, cost = len(alive), 0.0
    while least > _NEVER_ALONE and cost + alive[least - 1] <= may_spend:
        least -= 1
        cost += alive[least]
    return max(least, _NEVER_ALONE)
