"""The gate: when it passes, when it fails, and when it is inconclusive."""

import pytest
from msgspec.structs import replace

from edgefleet.protocol.metrics import CHANGES
from edgefleet.protocol.rollout import (
    Boundary,
    Cohort,
    Difference,
    Evidence,
    GateSpec,
    Judgement,
    LimitCounts,
    Verdict,
)
from edgefleet.rollout.evidence.gate import judge
from edgefleet.rollout.evidence.sequential import e_value
from edgefleet.rollout.limits import ALPHA_LEAST

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


def test_it_waits_for_the_minimum_sample():
    said = say(counts(cut=100, healthy=4, offered=96))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "sample")
    assert "4 of the 5" in said.text


def test_two_bad_ones_of_a_large_wave_do_not_fail_it_before_the_sample():
    said = say(counts(cut=100, failed=2, offered=98))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "sample")


def test_it_fails_as_soon_as_the_evidence_is_a_hundred_to_one():
    assert say(counts(cut=100, failed=4, healthy=1, offered=95)).reason == "error_rate"
    said = say(counts(cut=100, failed=3, healthy=2, offered=95))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "stragglers")


@pytest.mark.parametrize(
    ("failed", "healthy", "offered", "reason"),
    [
        (5, 6, 0, "error_rate"),
        (4, 7, 0, "error_rate"),  # the evaluation at the end of the wave
        (3, 8, 0, "inconclusive"),
        (4, 6, 1, "error_rate"),
        (3, 7, 1, "stragglers"),
        (0, 11, 0, "soak"),
    ],
)
def test_how_many_failures_of_eleven_are_enough(
    failed: int, healthy: int, offered: int, reason: str
):
    assert say(counts(cut=11, failed=failed, healthy=healthy, offered=offered)).reason == reason


def test_looks_at_the_ends_of_waves_are_numbered_and_each_is_stricter():
    three = counts(cut=10, failed=3, healthy=7)
    assert (say(three).reason, say(three).interim) == ("error_rate", 1)
    assert say(replace(three, looks=1)).reason == "inconclusive"
    assert say(replace(three, looks=1)).interim == 2


def test_a_look_is_taken_again_only_on_a_sample_that_grew_by_a_quarter():
    seen = counts(cut=100, failed=10, healthy=60, offline=30)
    assert say(replace(seen, looks=1, looked=70)).interim == 0
    assert say(replace(seen, looks=1, looked=57)).interim == 0
    assert say(replace(seen, looks=1, looked=56)).interim == 2
    assert say(replace(seen, looks=1, looked=56, offered=1)).interim == 0  # patience is not over
    assert say(replace(seen, looks=1, looked=56, handful=10, remaining=9)).interim == 0


def test_a_good_end_of_a_wave_is_a_look_too():
    assert say(counts(cut=10, healthy=10)).interim == 1


def test_what_failed_it_is_kept_with_its_interval_and_its_weight():
    said = say(counts(cut=100, failed=8, healthy=12, offered=80))
    assert said.text == "8 of 20 devices failed (40 %), 5 % allowed."
    rate = said.evidence.errors
    assert (rate.bad, rate.size, rate.allowed) == (8, 20, 0.05)
    assert rate.low < 0.4 < rate.high
    assert rate.e_value > 100


def test_failures_that_are_told_before_confirmations_are_held_against_all_that_began():
    assert say(counts(cut=1000, failed=5, offered=995)).reason == "error_rate"
    said = say(counts(cut=1000, failed=5, in_trial=95, offered=900))
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "stragglers")
    assert (said.evidence.errors.bad, said.evidence.errors.size) == (5, 100)
    assert say(counts(cut=1000, failed=9, healthy=1, in_trial=10, offered=980)).text == (
        "9 of 10 devices failed (90 %, 10 in trial), 5 % allowed."
    )


def test_devices_that_go_silent_have_a_limit_of_their_own():
    said = say(counts(cut=1000, healthy=187, failed=12, silent=12, offered=800))
    assert (said.verdict, said.reason) == (Verdict.FAIL, "silent")
    assert said.text == ("12 of 199 devices are silent after activating the release, 1 % allowed.")
    assert say(counts(cut=1000, healthy=187, failed=12, offered=800)).verdict is not Verdict.FAIL


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
    few = counts(cut=11, healthy=3, offline=8, remaining=80, spare=80)
    said = say(few, after_s=10_000)
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "extends")
    assert said.text == (
        "3 of the 5 devices that a verdict needs have finished. Moving up: 2 devices at the next "
        "positions."
    )
    assert say(few).reason == "sample"


def test_the_sample_is_what_can_be_had_when_no_device_can_move_up():
    few = counts(cut=11, healthy=3, offline=8)
    assert say(few).reason == "sample"
    assert say(few, after_s=600).reason == "soak"
    assert say(replace(few, planned=3)).reason == "soak"  # the others were away at the start


def test_few_failures_fail_it_when_nobody_else_can_be_had():
    bad = counts(cut=11, failed=3, offline=8)
    assert say(bad).reason == "sample"
    assert say(bad, after_s=600).reason == "error_rate"


def test_one_failure_never_decides_alone():
    assert say(counts(cut=1, failed=1, remaining=99)).reason == "extends"
    assert say(counts(cut=1, failed=1)).reason == "inconclusive"  # a fleet of one


def test_between_good_and_bad_the_wave_takes_more_devices():
    seen = counts(cut=11, healthy=10, failed=1, remaining=99)
    said = say(seen)
    assert (said.verdict, said.reason) == (Verdict.INCONCLUSIVE, "extends")
    assert say(replace(seen, needs_approval=True)).reason == "inconclusive"


def test_an_open_handful_that_is_undecided_takes_more_before_it_has_finished():
    seen = counts(cut=21, healthy=13, failed=2, in_trial=6, remaining=79)
    assert say(seen).reason == "stragglers"
    assert say(replace(seen, handful=10)).reason == "extends"
    assert say(replace(seen, handful=10, failed=0, healthy=15)).reason == "stragglers"


def test_at_the_end_of_the_fleet_a_person_is_asked_for_a_small_p_value():
    seen = counts(cut=100, healthy=90, failed=10)
    assert say(replace(seen, looks=1, looked=100)).reason == "inconclusive"  # p = 0.028
    near = replace(seen, failed=8, healthy=92)  # p = 0.13
    said = say(near)
    assert said.reason == "soak"
    assert said.text == (
        "8 of 100 devices failed (8 %), 5 % allowed; the whole fleet cannot tell it from the "
        "limit (95 % interval 1.9 % to 20.2 %). Live quality unjudged: the release served no "
        "requests. The wave must pass for 60 s."
    )
    assert say(near, spec=replace(SPEC, ask_p=1.0)).reason == "inconclusive"


def test_in_a_small_fleet_the_boundary_decides_and_no_look_is_taken():
    seen = counts(cut=5, failed=2, healthy=1, offered=2)
    reached = replace(seen, boundary=Boundary(devices=5, bad=2, size=3, needed=2))
    said = say(reached)
    assert (said.reason, said.interim) == ("error_rate", 0)
    assert said.text.endswith(
        "5 % allowed. In a fleet of 5, 2 failures of the first 3 devices fail a release."
    )
    missed = replace(seen, boundary=Boundary(devices=8, bad=2, size=6, needed=3), offered=0)
    assert say(missed).interim == 0
    assert say(missed).reason != "error_rate"


def quality(metric: str, e_value: float, *, requests: int = 100, mean: float = 0.2) -> Evidence:
    return replace(
        counts(cut=10, healthy=10),
        canary=Cohort(devices=5, requests=requests),
        control=Cohort(devices=5, requests=100),
        quality=(Difference(metric=metric, pairs=30, mean=mean, allowed=0.1, e_value=e_value),),
    )


@pytest.mark.parametrize(
    ("metric", "reason", "text"),
    [
        ("latency", "latency", "The 95th percentile of latency grew by 22.1 % against the control"),
        ("request_errors", "request_errors", "The share of failed requests grew by 20 % against"),
        (
            "confidence",
            "confidence_drop",
            "Mean confidence fell by 0.200 against the control (limit",
        ),
        ("accuracy", "accuracy_drop", "Golden accuracy fell by 20 % against the previous release"),
        ("classes", "drift", "The class histogram of devices drifted by 0.200 against the control"),
        (
            "refusals",
            "refusals",
            "The share of requests that were refused before the release ran grew by 20 % against",
        ),
        (
            "silent_clients",
            "request_drop",
            "The share of devices whose requests fell to near zero grew by 20 % against the control",
        ),
        (
            "requests",
            "request_drop",
            "Requests per device fell by 20 % against the control (limit",
        ),
        ("inputs", "drift", "The input histogram of devices drifted by 0.200 against the control"),
    ],
)
def test_worse_quality_than_the_control_fails_it(metric: str, reason: str, text: str):
    said = say(quality(metric, 2143))
    assert (said.verdict, said.reason) == (Verdict.FAIL, reason)
    assert said.text.startswith(text)
    assert "; 30 " in said.text


@pytest.mark.parametrize(
    "evidence", [quality("latency", 2142), quality("confidence", 3000, requests=49)]
)
def test_weak_evidence_or_too_few_requests_do_not_fail_it(evidence: Evidence):
    assert say(evidence).reason == "soak"


@pytest.mark.parametrize(
    ("above", "reason"),
    [
        ("latency", "latency"),
        ("request_errors", "request_errors"),
        ("refusals", "refusals"),
        ("memory", "memory"),
    ],
)
def test_devices_above_an_absolute_limit_fail_it(above: str, reason: str):
    evidence = counts(cut=100, healthy=20, offered=80)
    said = say(replace(evidence, limits=LimitCounts(devices=20, **{above: 9})))
    assert (said.verdict, said.reason) == (Verdict.FAIL, reason)
    assert said.text.startswith("9 of 20 devices have ")
    few = say(replace(evidence, limits=LimitCounts(devices=20, **{above: 2})))
    assert few.verdict is Verdict.INCONCLUSIVE


def test_the_most_frequent_cause_comes_before_the_statistics():
    failed = replace(counts(cut=10, failed=8, healthy=2), reasons={"load_failed": 5, "silent": 3})
    assert say(failed).text.startswith("Model did not load on 5 devices. 8 of 10 devices failed")
    refused = replace(counts(cut=10, refused=5, offered=5), reasons={"golden_failed": 5})
    assert say(refused).text == (
        "Golden set failed on 5 devices. "
        "5 of 5 devices refused the release; no device activated it."
    )


def test_the_cause_says_what_fell_where_from_to_and_the_limit_before_the_count():
    words = "Mean confidence fell from 0.960 to 0.400 over 50 scores (limit 0.860)."
    alone = replace(
        counts(cut=1, failed=1),
        reasons={"confidence_drop": 1},
        details={"confidence_drop": words},
        examples={"confidence_drop": "wine-1"},
        boundary=Boundary(devices=1, bad=1, size=1, needed=1),
    )
    assert say(alone).text.startswith(
        f"wine-1: {words} 1 of 1 devices failed (100 %), 5 % allowed."
    )
    several = replace(alone, failed=8, healthy=2, cut=10, reasons={"confidence_drop": 8})
    assert say(several).text.startswith(
        f"Confidence dropped on 8 devices. On wine-1: {words} 8 of 10 devices failed"
    )


def test_a_quality_that_fell_is_shown_for_canary_and_control():
    fell = Difference(metric="confidence", pairs=36, mean=0.24, allowed=0.1, e_value=1e9)
    seen = replace(
        counts(cut=40, healthy=40),
        quality=(fell,),
        canary=Cohort(devices=40, requests=9000, confidence_mean=0.7),
        control=Cohort(devices=40, requests=9000, confidence_mean=0.94),
    )
    assert say(seen).text == (
        "Mean confidence fell by 0.240 against the control (limit 0.100; 36 pairs of devices). "
        "Canary: 0.700, control: 0.940."
    )


NOTHING_KNOWN = "Live quality unjudged: the release served no requests."


@pytest.mark.parametrize("metric", ["accuracy", "requests", "neighbour_latency"])
def test_what_was_not_asked_on_live_requests_is_no_quality(metric: str):
    """Golden accuracy, traffic and other models say nothing about the answers of the release."""
    evidence = counts(cut=10, healthy=10)
    assert NOTHING_KNOWN in say(evidence).text
    found = replace(evidence, quality=(Difference(metric=metric, pairs=10),))
    assert NOTHING_KNOWN in say(found).text
    few = replace(found, canary=Cohort(requests=30), control=Cohort(requests=900))
    assert "Live quality unjudged: its requests were too few." in say(few).text
    limits = replace(few, limits=LimitCounts(devices=3))
    assert "compared with the limits of the plan, not with a control" in say(limits).text


def test_quality_that_was_compared_is_not_called_unknown():
    assert say(quality("latency", 1)).text.startswith("0 of 10 devices failed. The wave must")
    few = say(quality("latency", 1, requests=30)).text
    assert "Live quality unjudged: it is judged from 50 requests on, beside a control." in few


@pytest.mark.parametrize("metric", [metric.key for metric in CHANGES])
def test_the_least_alpha_of_a_plan_leaves_every_test_able_to_fail(metric: str):
    spec = GateSpec(alpha=ALPHA_LEAST, max_request_drop=0.5)
    sure = quality(metric, e_value(1e6))
    assert judge(sure, spec, opened_at=0, before=None, now=10).verdict is Verdict.FAIL
