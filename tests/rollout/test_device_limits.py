"""Absolute limits: devices are judged by all their requests, the release by those before it."""

import math
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.protocol.bins import bucket
from edgefleet.protocol.device import Scores, Sketches, Telemetry
from edgefleet.protocol.metrics import LIMITS
from edgefleet.protocol.rollout import (
    Evidence,
    GateSpec,
    Judgement,
    LimitCounts,
    LimitPairs,
    LimitSide,
    Verdict,
)
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.evidence.cohorts import Cohorts
from edgefleet.rollout.evidence.device_limits import (
    DeviceLimits,
    SwitchPairs,
    control_p_value,
    is_flagged,
    sign_evidence,
)

SPEC = GateSpec()
BAR = 1000  # 1 / alpha of one of three limits


def report(
    requests: int, errors: int = 0, slow: int = 0, *, memory_mib: int = 10, sketched: bool = True
) -> Telemetry:
    latency = {bucket(50_000): requests - slow, bucket(150_000): slow}
    return Telemetry(
        release="2", requests=requests, errors=errors, confidence_sum=0.0, confidence_count=0,
        latency_us_p50=0, latency_us_p95=50_000, memory_mib=memory_mib,
        sketches=Sketches(latency=latency) if sketched else None,
    )  # fmt: skip


def scores(before: float, after: float, *, requests: int = 100) -> Scores:
    """The windows of a switch, with these shares of failed requests."""
    return Scores(
        from_release="1", to_release="2", requests=requests,
        error_rate=after, error_rate_delta=after - before,
    )  # fmt: skip


def say(limits: LimitCounts) -> Judgement:
    evidence = Evidence(cut=100, healthy=40, offered=60, exposed=40, limits=limits)
    return gate.judge(evidence, SPEC, opened_at=0.0, before=None, now=1.0)


def test_two_failed_requests_of_twenty_are_chance():
    assert not is_flagged(2, 20, 0.05)
    assert not is_flagged(4, 20, 0.05)  # p = 0.016
    assert is_flagged(5, 20, 0.05)  # p = 0.0026
    assert not is_flagged(50, 1000, 0.05)
    assert is_flagged(70, 1000, 0.05)


def test_a_device_at_the_limit_is_flagged_one_time_in_a_hundred():
    rng = np.random.default_rng(5)
    for requests in (20, 100, 700):
        bad = rng.binomial(requests, 0.05, 20_000)
        assert np.mean([is_flagged(int(one), requests, 0.05) for one in bad]) <= 0.011


def test_reports_of_twenty_requests_are_summed_over_the_trial():
    limits = DeviceLimits()
    for errors in (2, 0, 1, 2, 0):  # one report has 10 % failed requests, all together 5 %
        limits.add(7, report(20, errors), SPEC, 0, is_warm=True)
        assert limits.side() == LimitSide(devices=1)
    for _ in range(5):
        limits.add(7, report(20, 4), SPEC, 0, is_warm=True)
    assert limits.side() == LimitSide(devices=1, request_errors=1)  # 25 of 200


def test_a_device_counts_from_twenty_requests_on():
    limits = DeviceLimits()
    limits.add(1, report(19, 19), SPEC, 0, is_warm=True)
    assert limits.side() == LimitSide()
    limits.add(1, report(1, 0), SPEC, 0, is_warm=True)
    assert limits.side() == LimitSide(devices=1, request_errors=1)


def test_slow_requests_are_a_share_and_the_warm_up_is_left_out():
    limits = DeviceLimits()
    limits.add(1, report(100, slow=100), SPEC, 0, is_warm=False)
    for _ in range(4):
        limits.add(1, report(100, slow=6), SPEC, 0, is_warm=True)
    assert limits.side() == LimitSide(devices=1)  # 24 of 400: p95 is above, by chance
    limits.add(1, report(100, slow=20), SPEC, 0, is_warm=True)
    assert limits.side() == LimitSide(devices=1, latency=1)


def test_an_agent_without_sketches_is_judged_by_its_p95():
    limits = DeviceLimits()
    slow = replace(report(50, sketched=False), latency_us_p95=150_000)
    limits.add(1, slow, SPEC, 0, is_warm=True)
    assert limits.side() == LimitSide(devices=1, latency=1)


@pytest.mark.parametrize("seed", range(20))
def test_many_devices_that_report_the_same_count_as_one_after_the_other(seed: int):
    draw = Random(seed)
    one, many = DeviceLimits(), DeviceLimits()
    for _ in range(30):
        rows = np.array(sorted(draw.sample(range(3000), 40)))
        said = report(
            draw.choice([0, 10, 50]), draw.randint(0, 6), memory_mib=draw.choice([10, 60]),
            sketched=draw.random() < 0.5,
        )  # fmt: skip
        is_warm = draw.random() < 0.7
        many.add_all(rows, said, SPEC, 64, is_warm=is_warm)
        for row in rows.tolist():
            one.add(row, said, SPEC, 64, is_warm=is_warm)
        assert one.side() == many.side()
    assert one.side().devices > 0


def test_a_device_with_very_many_requests_is_counted_up_to_the_size_of_its_column():
    limits, rows = DeviceLimits(), np.array([3])
    busy = report(1 << 40, 1 << 39)
    for _ in range(3):
        limits.add(3, busy, SPEC, 0, is_warm=True)
        limits.add_all(rows, busy, SPEC, 0, is_warm=True)
    assert limits.side() == LimitSide(devices=1, request_errors=1)


def odds(worse: int, better: int, *, later: int = 0) -> float:
    """The e-value of one round, after ``later`` rounds without a change."""
    rounds = [LimitPairs(pairs=50)] * later
    return float(np.exp(sign_evidence([*rounds, LimitPairs(worse=worse, better=better)])))


@pytest.mark.parametrize("later", [0, 1, 5])
def test_the_sign_test_is_a_game_that_is_fair(later: int):
    """The mean over both outcomes of the next device is the wealth before it."""
    for worse, better in ((0, 0), (3, 1), (12, 9)):
        up, down = odds(worse + 1, better, later=later), odds(worse, better + 1, later=later)
        assert (up + down) / 2 == pytest.approx(odds(worse, better, later=later))
    assert odds(0, 0, later=later) == pytest.approx(1)


def test_thirteen_devices_that_are_worse_are_enough_and_seventeen_later():
    assert odds(12, 0) < BAR <= odds(13, 0)
    assert odds(16, 0, later=3) < BAR <= odds(17, 0, later=3)
    assert odds(30, 30) < 1


def test_without_a_change_the_sign_test_seldom_rejects_at_any_time():
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(200):
        worse = np.cumsum(rng.random((3, 200)) < 0.5, axis=1)
        looks = (
            [LimitPairs(worse=int(up), better=number - int(up)) for up in worse[:, number - 1]]
            for number in range(1, 201, 2)
        )
        alarms += max(map(sign_evidence, looks)) >= np.log(20)
    assert alarms <= 0.05 * 200


def later(rate: float) -> Scores:
    """The last two windows of a device long after its switch."""
    return replace(scores(rate, rate), from_release="2")


def test_windows_before_and_after_a_switch_are_compared_once_for_each_device():
    pairs = SwitchPairs()
    windows = ((0.03, 0.20), (0.20, 0.03), (0.20, 0.20), (0.0, 0.0), (0.04, 0.07))
    for row, (before, after) in enumerate(windows):
        pairs.add(row, scores(before, after), SPEC)
        pairs.add(row, scores(0.0, 1.0), SPEC)
    found = {"request_error_limit": (LimitPairs(pairs=5, worse=1, better=1),)}
    assert pairs.rounds() == found
    resumed = SwitchPairs(pairs.rounds())
    resumed.add(9, scores(0.0, 0.3), SPEC)
    assert resumed.rounds()["request_error_limit"][0].worse == 2
    assert pairs.rounds() == found


def test_a_device_that_gets_worse_later_counts_in_the_round_of_that_window():
    pairs = SwitchPairs()
    pairs.add(1, scores(0.0, 0.0), SPEC)
    for number in range(2, 200):
        pairs.add(1, later(0.0 if number < 5 else 0.5), SPEC)
    rounds = pairs.rounds()["request_error_limit"]
    assert [one.worse for one in rounds] == [0, 0, 0, 1, 1, 1, 1, 1]  # windows 1, 2, 4, ... 128
    assert {one.pairs for one in rounds} == {1}


def test_a_window_without_that_before_the_switch_is_compared_with_nothing():
    pairs = SwitchPairs()
    for _ in range(5):
        pairs.add(1, later(0.5), SPEC)
    assert pairs.rounds() == {}


def test_the_p95_of_both_windows_is_compared_with_the_limit():
    pairs = SwitchPairs()
    slower = Scores(
        from_release="1", to_release="2", requests=100, latency_us_p95=150_000,
        latency_log_ratio=float(np.log(150 / 60)),
    )  # fmt: skip
    pairs.add(1, slower, SPEC)
    pairs.add(2, replace(slower, latency_log_ratio=0.0), SPEC)
    pairs.add(3, replace(slower, latency_us_p95=60_000, latency_log_ratio=-1.0), SPEC)
    assert pairs.rounds() == {"latency_limit": (LimitPairs(pairs=3, worse=1, better=1),)}


def test_scores_of_an_older_agent_have_no_windows():
    pairs = SwitchPairs()
    old = Scores(from_release="1", to_release="2", requests=100, error_rate_delta=0.5)
    pairs.add(1, old, SPEC)
    assert pairs.rounds() == {}


ABOVE = LimitCounts(devices=40, latency=40, has_previous=True)


def test_a_limit_needs_both_tests():
    worse = {"latency_limit": (LimitPairs(pairs=40, worse=20),)}
    said = say(replace(ABOVE, pairs=worse))
    assert (said.verdict, said.reason) == (Verdict.FAIL, "latency")
    assert said.text == (
        "40 of 40 devices have a 95th percentile of latency above 100 ms, 5 % of devices allowed. "
        "Of 40 devices compared with the previous release, 20 exceed the limit only now, 0 only "
        "before."
    )
    few = {"latency_limit": (LimitPairs(pairs=40, worse=11),)}
    assert say(replace(ABOVE, pairs=few)).reason != "latency"
    rare = replace(ABOVE, devices=1000, pairs=worse)
    assert say(rare).reason != "latency"


def test_what_the_control_exceeds_half_as_often_is_not_the_fault_of_the_release():
    worse = {"latency_limit": (LimitPairs(pairs=40, worse=40),)}
    shared = replace(ABOVE, pairs=worse, control=LimitSide(devices=10, latency=5))
    assert say(shared).reason != "latency"
    less = replace(shared, control=LimitSide(devices=10, latency=4))
    assert say(less).reason == "latency"
    lone = replace(shared, control=LimitSide(devices=1, latency=1))
    assert say(lone).reason == "latency"


def test_without_windows_the_control_decides_and_without_both_nothing_is_said():
    assert say(ABOVE).reason != "latency"
    assert say(replace(ABOVE, control=LimitSide(devices=10))).reason == "latency"
    assert say(replace(ABOVE, control=LimitSide(devices=1))).reason != "latency"
    few = replace(ABOVE, devices=10, latency=6)
    assert say(replace(few, control=LimitSide(devices=4))).reason != "latency"
    assert say(replace(few, control=LimitSide(devices=40))).reason == "latency"
    assert say(replace(few, has_previous=False)).reason == "latency"  # a first release


def test_the_p_value_of_the_control_is_that_of_fisher():
    """Five of ten and none of sixty: all five are among the ten by chance."""
    metric = next(one for one in LIMITS if one.counter == "latency")
    counts = LimitCounts(devices=10, latency=5, control=LimitSide(devices=60))
    assert control_p_value(counts, metric) == pytest.approx(math.comb(10, 5) / math.comb(70, 5))
    equal = replace(counts, control=LimitSide(devices=10, latency=5))
    tail = sum(math.comb(10, k) * math.comb(10, 10 - k) for k in range(5, 11))
    assert control_p_value(equal, metric) == pytest.approx(tail / math.comb(20, 10))
    assert control_p_value(replace(counts, control=LimitSide()), metric) == 1


def test_a_limit_that_does_not_fail_the_release_is_named():
    evidence = Evidence(limits=ABOVE)
    assert [one.key for one in gate.shared_limits(evidence, SPEC)] == ["latency_limit"]
    worse = replace(ABOVE, pairs={"latency_limit": (LimitPairs(pairs=40, worse=20),)})
    assert gate.shared_limits(Evidence(limits=worse), SPEC) == ()


def test_the_cohorts_count_both_sides():
    cohorts = Cohorts()
    for row in range(3):
        cohorts.add_control(row, replace(report(50, 20), release="1"), SPEC, 0)
        said = replace(report(100, 30), scores=scores(0.4, 0.3))
        cohorts.add_canary(10 + row, said, SPEC, 0)
    found = cohorts.limits(has_previous=True)
    assert (found.devices, found.request_errors) == (3, 3)
    assert (found.control.devices, found.control.request_errors) == (3, 3)
    assert found.pairs == {"request_error_limit": (LimitPairs(pairs=3),)}
    assert found.has_previous
