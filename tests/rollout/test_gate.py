"""The gate: when it passes, fails, or leaves it to more evidence or to a person."""

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefleet.protocol.rollout import Cohort, Evidence, GateSpec, Judgement, Verdict
from edgefleet.rollout.gate import ALPHA, judge, lower_bound, upper_tail

SPEC = GateSpec(min_sample=5, soak_s=60, patience_s=600, silence_s=100, confirm_after_s=30)
OPENED = 1000.0


def say(
    evidence: Evidence,
    *,
    spec: GateSpec = SPEC,
    after_s: float = 10,
    before: Judgement | None = None,
) -> Judgement:
    return judge(evidence, spec, opened_at=OPENED, before=before, now=OPENED + after_s)


def counts(**accounts: int) -> Evidence:
    evidence = Evidence(**accounts)
    if evidence.exposed == 0:
        evidence = replace(evidence, exposed=evidence.healthy + evidence.failed)
    return evidence


def exact_tail(failed: int, size: int, rate: float) -> float:
    """In fractions: the powers of a small rate are too small for a float long before the sum is."""
    p = Fraction(rate)
    return float(
        sum(math.comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(failed, size + 1))
    )


@given(st.integers(2, 200).flatmap(lambda n: st.tuples(st.integers(1, n - 1), st.just(n))),
       st.floats(1e-3, 1))  # fmt: skip
@example((100, 200), 1e-3)
def test_the_tail_is_the_binomial_sum(case: tuple[int, int], share: float):
    failed, size = case
    rate = share * failed / size
    assert upper_tail(failed, size, rate) == pytest.approx(
        exact_tail(failed, size, rate), rel=1e-9, abs=1e-300
    )


@pytest.mark.parametrize(
    ("failed", "size", "bound"),
    # Published one-sided 95 % bounds, and k of k from alpha ** (1/k).
    [
        (0, 10, 0.0),
        (1, 1, 0.05),
        (2, 2, 0.2236),
        (1, 20, 0.00256),
        (5, 10, 0.2224),
        (3, 11, 0.0788),
    ],
)
def test_the_lower_bound_is_that_of_clopper_and_pearson(failed: int, size: int, bound: float):
    assert lower_bound(failed, size) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(
    ("failed", "size"), [(50_000, 1_000_000), (999_999, 1_000_000), (1, 10**6)]
)
def test_the_lower_bound_is_safe_at_a_million(failed: int, size: int):
    bound = lower_bound(failed, size)
    assert 0 < bound < failed / size
    assert upper_tail(failed, size, bound) == pytest.approx(ALPHA, rel=1e-6)


def test_the_lower_bound_at_a_million_agrees_with_the_normal_approximation():
    rate, size = 0.05, 1_000_000
    normal = rate - 1.6449 * math.sqrt(rate * (1 - rate) / size)
    assert lower_bound(int(rate * size), size) == pytest.approx(normal, abs=2e-6)


def test_it_waits_for_the_minimum_sample():
    said = say(counts(cut=100, healthy=4, offered=96))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "sample")
    assert "4 of the 5" in said.text


def test_two_bad_ones_of_a_large_wave_do_not_fail_it_before_the_sample():
    said = say(counts(cut=100, failed=2, offered=98))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "sample")


def test_it_fails_as_soon_as_the_bound_lies_above_the_limit():
    assert say(counts(cut=100, failed=2, healthy=3, offered=95)).reason == "error_rate"
    said = say(counts(cut=100, failed=1, healthy=4, offered=95))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "stragglers")


def test_refusals_count_as_failures_and_have_their_own_reason_when_nobody_was_exposed():
    said = say(counts(cut=10, refused=5, offered=5))
    assert (said.verdict, said.reason) == (Verdict.FAIL, "refused_by_devices")
    said = say(counts(cut=10, refused=4, failed=1, offered=5))
    assert (said.verdict, said.reason) == (Verdict.FAIL, "error_rate")


def test_offline_and_deferred_devices_are_no_failures_and_no_sample():
    said = say(counts(cut=100, offline=80, deferred=15, healthy=5))
    assert said.reason == "soak"
    said = say(counts(cut=100, offline=80, deferred=16, healthy=4))
    assert said.reason == "sample"


def test_a_device_in_trial_is_waited_for():
    said = say(counts(cut=10, healthy=9, in_trial=1))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "stragglers")


def test_it_passes_after_it_has_stood_for_the_soak_time():
    good = counts(cut=10, healthy=10)
    soaking = say(good, after_s=100)
    assert (soaking.verdict, soaking.reason) == (Verdict.INCONCLUSIVE, "soak")
    assert say(good, after_s=159, before=soaking).verdict is Verdict.INCONCLUSIVE
    assert say(good, after_s=160, before=soaking).verdict is Verdict.PASS


def test_without_soak_time_it_passes_at_once():
    assert say(counts(cut=10, healthy=10), spec=replace(SPEC, soak_s=0)).verdict is Verdict.PASS


def test_the_soak_begins_anew_after_another_reason():
    straggling = say(counts(cut=10, healthy=9, in_trial=1), after_s=100)
    assert say(counts(cut=10, healthy=10), after_s=400, before=straggling).reason == "soak"


def test_stragglers_are_left_behind_when_patience_is_over():
    late = counts(cut=10, healthy=8, offered=2)
    assert say(late, after_s=599).reason == "stragglers"
    assert say(late, after_s=600).reason == "soak"


def test_trials_get_their_own_time_after_patience():
    trying = counts(cut=10, healthy=8, in_trial=2)
    assert say(trying, after_s=729).reason == "stragglers"
    assert say(trying, after_s=730).reason == "soak"  # 600 + 30 + 100


def test_a_wave_smaller_than_the_sample_counts_whole():
    assert say(counts(cut=2, healthy=2)).reason == "soak"
    assert say(counts(cut=2, healthy=1, offline=1)).reason == "sample"
    assert say(counts(cut=2, healthy=1, offline=1), after_s=600).reason == "soak"
    assert say(counts(cut=2, offline=2), after_s=10_000).reason == "sample"


def test_a_larger_wave_never_passes_on_less_than_the_sample():
    assert say(counts(cut=11, healthy=3, offline=8), after_s=10_000).reason == "sample"


def test_few_failures_fail_it_when_nobody_else_can_be_had():
    bad = counts(cut=11, failed=3, offline=8)
    assert say(bad).reason == "sample"
    assert say(bad, after_s=600).reason == "error_rate"


def test_a_wave_in_which_no_device_is_well_fails():
    assert say(counts(cut=1, failed=1)).reason == "error_rate"


def test_between_good_and_bad_it_leaves_it_to_a_person():
    said = say(counts(cut=11, healthy=10, failed=1))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "inconclusive")


def cohorts(canary: float, control: float, requests: int = 100) -> Evidence:
    return replace(
        counts(cut=10, healthy=10),
        canary=Cohort(devices=5, requests=requests, confidence_mean=canary),
        control=Cohort(devices=5, requests=100, confidence_mean=control),
    )


def test_a_drop_of_confidence_against_the_control_fails_it():
    said = say(cohorts(0.70, 0.90))
    assert (said.verdict, said.reason) == (Verdict.FAIL, "confidence_drop")
    assert "0.200 below" in said.text


@pytest.mark.parametrize(
    "evidence", [cohorts(0.85, 0.90), cohorts(0.70, 0.90, requests=49), cohorts(0.95, 0.70)]
)
def test_a_small_drop_or_too_few_requests_do_not_fail_it(evidence: Evidence):
    assert say(evidence).reason == "soak"
