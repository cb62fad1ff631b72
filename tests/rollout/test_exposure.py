"""The exposure limit: how many devices may be in trial at once."""

from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.rollout import ExposureSpec, GateSpec
from edgefleet.rollout.constraints.exposure import allowed, missed, suspicious

SPEC = ExposureSpec(first=10, growth=1.0)
few = st.integers(0, 10_000)


def test_a_first_handful_and_then_as_many_as_have_confirmed_it():
    grown = [allowed(SPEC, healthy=healthy, in_trial=0, suspect=False) for healthy in (0, 5, 40)]
    assert grown == [10, 10, 40]


def test_growth_is_what_the_plan_says():
    assert allowed(ExposureSpec(first=1, growth=2.5), healthy=4, in_trial=0, suspect=False) == 10
    assert allowed(ExposureSpec(first=7, growth=0.0), healthy=99, in_trial=0, suspect=False) == 7


@given(healthy=few, in_trial=few)
def test_a_suspect_release_gets_no_devices_beyond_the_first(healthy: int, in_trial: int):
    limit = allowed(SPEC, healthy=healthy, in_trial=in_trial, suspect=True)
    assert SPEC.first <= limit <= max(SPEC.first, in_trial)
    assert limit <= allowed(SPEC, healthy=healthy, in_trial=in_trial, suspect=False)


@given(healthy=few, in_trial=few, missing=few)
def test_under_suspicion_it_goes_on_by_first_handfuls_beside_the_missing(
    healthy: int, in_trial: int, missing: int
):
    missing = min(missing, in_trial)
    limit = allowed(SPEC, healthy=healthy, in_trial=in_trial, suspect=True, missing=missing)
    free = allowed(SPEC, healthy=healthy, in_trial=in_trial, suspect=False)
    assert limit == min(free, max(SPEC.first + missing, in_trial))


def test_too_many_are_missing_when_chance_at_the_limit_seldom_takes_so_many():
    gate = GateSpec(max_silent_rate=0.01)
    assert not missed(gate, missing=0, due=0)
    assert missed(gate, missing=1, due=10)
    assert not missed(gate, missing=1, due=11)
    assert missed(gate, missing=9, due=500)
    assert not missed(gate, missing=8, due=500)
    assert not missed(gate, missing=9, due=1000)


def test_suspicion_is_evidence_that_leans_against_the_release():
    gate = GateSpec(max_error_rate=0.05)
    assert not suspicious(gate, bad=0, size=0)
    assert not suspicious(gate, bad=1, size=10)
    assert suspicious(gate, bad=2, size=10)
    assert not suspicious(gate, bad=30, size=1000)
    assert suspicious(gate, bad=80, size=1000)
