"""The e-value of a class: its guarantee, and the smallest class that it can name."""

import math

import pytest

from edgefleet.protocol.rollout import ClassRate, Evidence, GateSpec, Rate
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.class_test import (
    ClassCount,
    failed_class,
    fails_alone,
    log_class_evidence,
    worst_of,
)
from edgefleet.rollout.evidence.gate import weigh

SPEC = GateSpec()
LIMIT = SPEC.max_error_rate


def named(bad: int, size: int, classes: int) -> bool:
    found = ClassRate(key="profile", value="p", rate=Rate(bad=bad, size=size, allowed=LIMIT))
    return failed_class(Evidence(classes=(found,), class_count=classes), SPEC) is not None


@pytest.mark.parametrize("rate", [0.001, 0.02, LIMIT])
@pytest.mark.parametrize("size", [1, 3, 20, 60])
def test_no_rate_within_the_limit_has_an_expected_e_value_above_one(rate: float, size: int) -> None:
    expected = sum(
        math.comb(size, bad)
        * rate**bad
        * (1 - rate) ** (size - bad)
        * math.exp(log_class_evidence(bad, size, LIMIT))
        for bad in range(size + 1)
    )
    assert expected <= 1 + 1e-9


def test_the_e_value_is_a_martingale_at_the_limit() -> None:
    for bad, size in ((0, 0), (2, 3), (4, 30), (0, 50)):
        after = LIMIT * math.exp(log_class_evidence(bad + 1, size + 1, LIMIT))
        after += (1 - LIMIT) * math.exp(log_class_evidence(bad, size + 1, LIMIT))
        assert after == pytest.approx(math.exp(log_class_evidence(bad, size, LIMIT)), rel=1e-6)


def test_three_devices_name_a_class_out_of_twelve() -> None:
    assert named(3, 3, classes=12)
    assert named(3, 3, classes=15)
    assert not named(3, 3, classes=16)
    assert not named(2, 2, classes=2), "two failures never name a class"
    assert named(4, 4, classes=269)
    assert not named(4, 4, classes=270)


def test_a_device_in_trial_only_weakens_the_evidence() -> None:
    for size in range(3, 20):
        logs = [log_class_evidence(3, size, LIMIT) for size in range(3, size + 1)]
        assert logs == sorted(logs, reverse=True)


def test_the_bar_is_divided_among_the_classes() -> None:
    assert alphas.CLASSES.log_bar(SPEC, 12) == pytest.approx(math.log(12 / 0.005))


def test_a_limit_of_none_or_all_is_no_division_by_zero() -> None:
    assert log_class_evidence(1, 3, 0.0) == math.inf
    assert log_class_evidence(3, 3, 0.95) > 0
    assert log_class_evidence(3, 3, 1.0) == 0.0


def test_equal_evidence_has_one_order_and_only_the_worst_are_kept() -> None:
    found = [ClassCount("site", value, 1, 4) for value in "cab"]
    found.append(ClassCount("site", "d", 0, 4))
    worst = worst_of(found, LIMIT, 3)
    assert [one.value for one in worst] == ["a", "b", "c"]
    assert worst[0].rate.low < 0.25 < worst[0].rate.high
    assert math.log(worst[0].rate.e_value) == pytest.approx(log_class_evidence(1, 4, LIMIT))


@pytest.mark.parametrize(
    ("bad", "size", "alone"),
    [(0, 4, False), (0, 5, True), (1, 7, False), (1, 10, True), (4, 30, False), (1, 60, True)],
)
def test_the_rest_decides_whether_a_class_goes_back_alone(bad: int, size: int, alone: bool) -> None:
    found = ClassRate(key="profile", value="p", rate=Rate(bad=4, size=4))
    evidence = weigh(
        Evidence(failed=4 + bad, healthy=size - bad, classes=(found,), class_count=3), SPEC
    )
    assert fails_alone(evidence, SPEC, found) is alone
