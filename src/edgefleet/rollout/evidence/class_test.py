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
from typing import Final

from edgefleet.protocol.rollout import ClassRate, Evidence, GateSpec, Rate
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.sequential import e_value, log_rate_evidence

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


def with_e_value(found: ClassRate, limit: float) -> ClassRate:
    """The counts of a class with their e-value."""
    return ClassRate(
        key=found.key,
        value=found.value,
        bad=found.bad,
        size=found.size,
        e_value=e_value(log_class_evidence(found.bad, found.size, limit)),
    )


def worst_first(found: Iterable[ClassRate], limit: float) -> list[ClassRate]:
    """The classes by their evidence against the release, the worst first.

    Of equal evidence the first by key and value counts as worse.
    """
    return sorted(
        found,
        key=lambda one: (-log_class_evidence(one.bad, one.size, limit), one.key, one.value),
    )


def failed_class(evidence: Evidence, spec: GateSpec) -> ClassRate | None:
    """The class on which the release fails. None if it fails on none."""
    if not evidence.classes:
        return None
    worst = evidence.classes[0]
    bar = alphas.CLASSES.log_bar(spec, max(1, evidence.class_count))
    fails = log_class_evidence(worst.bad, worst.size, spec.max_error_rate) >= bar
    return worst if fails else None


def rest_of(evidence: Evidence, found: ClassRate) -> Rate:
    """The devices that have begun outside the class."""
    every = evidence.errors
    return Rate(bad=every.bad - found.bad, size=every.size - found.size, allowed=every.allowed)


def fails_alone(evidence: Evidence, spec: GateSpec, found: ClassRate) -> bool:
    """True if the release may go on to the devices outside the class.

    As many of them as a verdict needs have begun, and they are no evidence against the release.
    """
    rest = rest_of(evidence, found)
    if rest.size < max(1, spec.min_sample):
        return False
    return log_rate_evidence(rest.bad, rest.size, spec.max_error_rate) <= 0
