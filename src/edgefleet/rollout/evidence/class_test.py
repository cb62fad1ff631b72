"""The test of failures in each class of devices: a hardware class, or a value of a label.

A release can fail always on 4 % of the fleet and pass every test of all devices together. So each
class c, with k of m devices bad, has an e-value of its own against "the rate in c is at most L":

    E_c = 1/2 B(k, m) + 1/2 (t / L)^k ((1 - t) / (1 - L))^(m - k),   t = 0.9

B is the e-value of all rates above the limit (``sequential.log_rate_evidence``). The second half is
the likelihood ratio of a class on which nearly everything fails. A mean of e-values is an e-value,
so E_c ever reaches C / alpha with a probability of at most alpha / C while the rate in c is within
the limit. By the union bound over the C classes of the plan, whatever they share, a class is named
falsely with a probability of at most alpha. With the default alpha of 0.5 % for all classes, 3
failures of 3 devices name a class if there are at most 15 classes, and 4 of 4 if there are at most
269. A device in trial counts as good, so an early look never exceeds the final one.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from edgefleet.protocol.rollout import ClassRate, Evidence, GateSpec, Rate
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.sequential import e_value, log_rate_evidence, rate_interval

_NEARLY_ALL: Final = 0.9  # the rate of failure in a class on which the release does not work


@lru_cache(maxsize=4096)
def log_class_evidence(bad: int, size: int, limit: float) -> float:
    """The log e-value of ``bad`` of ``size`` devices of a class against a rate of ``limit``."""
    any_rate = log_rate_evidence(bad, size, limit)
    if not 0 < limit < _NEARLY_ALL:
        return any_rate
    nearly_all = bad * math.log(_NEARLY_ALL / limit)
    nearly_all += (size - bad) * math.log((1 - _NEARLY_ALL) / (1 - limit))
    most = max(any_rate, nearly_all)
    both = math.exp(any_rate - most) + math.exp(nearly_all - most)
    return most + math.log(both / 2)


class ClassCount(NamedTuple):
    """``bad`` of the ``size`` devices of a class that began failed."""

    key: str
    value: str
    bad: int
    size: int


def worst_of(counted: Iterable[ClassCount], limit: float, most: int) -> tuple[ClassRate, ...]:
    """The ``most`` classes with the strongest evidence against the release, the worst first.

    Of equal evidence the first by key and value counts as worse.
    """
    logs = ((log_class_evidence(one.bad, one.size, limit), one) for one in counted)
    found = sorted(logs, key=lambda each: (-each[0], each[1].key, each[1].value))
    return tuple(_rate(one, log, limit) for log, one in found[:most])


def _rate(counted: ClassCount, log_evidence: float, limit: float) -> ClassRate:
    low, high = rate_interval(counted.bad, counted.size)
    return ClassRate(
        key=counted.key,
        value=counted.value,
        rate=Rate(
            bad=counted.bad,
            size=counted.size,
            allowed=limit,
            low=low,
            high=high,
            e_value=e_value(log_evidence),
        ),
    )


def failed_class(evidence: Evidence, spec: GateSpec) -> ClassRate | None:
    """The class on which the release fails. None if it fails on none."""
    if not evidence.classes:
        return None
    worst = evidence.classes[0]
    bar = alphas.CLASSES.log_bar(spec, max(1, evidence.class_count))
    rate = worst.rate
    fails = log_class_evidence(rate.bad, rate.size, rate.allowed) >= bar
    return worst if fails else None


def rest_of(evidence: Evidence, found: ClassRate) -> Rate:
    """The devices that have begun outside the class."""
    every, mine = evidence.errors, found.rate
    return Rate(bad=every.bad - mine.bad, size=every.size - mine.size, allowed=every.allowed)


def fails_alone(evidence: Evidence, spec: GateSpec, found: ClassRate) -> bool:
    """True if the release may go on to the devices outside the class.

    As many of them as a verdict needs have begun, and they are no evidence against the release.
    """
    rest = rest_of(evidence, found)
    if rest.size < max(1, spec.min_sample):
        return False
    return log_rate_evidence(rest.bad, rest.size, rest.allowed) <= 0
