"""The exposure limit: how many devices may be in trial at once."""

from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.rollout import ExposureSpec, GateSpec
from edgefleet.rollout.constraints.exposure import (
    allowed,
    ceiling,
    missed,
    suspicious,
    trusted,
)

SPEC = ExposureSpec(first=10, growth=1.0)
few = st.integers(0, 10_000)
LARGE = 1_000_000


def test_a_first_handful_and_then_as_many_as_have_confirmed_it():
    grown = [trusted(SPEC, healthy=healthy, devices=LARGE) for healthy in (0, 5, 40)]
    assert grown == [10, 10, 40]


def test_growth_is_what_the_plan_says():
    assert trusted(ExposureSpec(first=1, growth=2.5), healthy=4, devices=LARGE) == 10
    assert trusted(ExposureSpec(first=7, growth=0.0), healthy=99, devices=LARGE) == 7


def test_it_ends_at_a_share_of_the_fleet_however_many_are_healthy():
    assert trusted(SPEC, healthy=900, devices=1000) == 50
    assert trusted(ExposureSpec(ceiling=0.02), healthy=900, devices=1000) == 20
    assert trusted(ExposureSpec(ceiling=1.0), healthy=900, devices=1000) == 900


def test_a_small_fleet_and_a_ceiling_of_nothing_still_get_the_first_handful():
    assert ceiling(SPEC, 30) == 10
    assert ceiling(ExposureSpec(first=3, ceiling=0.0), LARGE) == 3


@given(limit=few, in_trial=few)
def test_a_suspect_release_gets_no_devices_beyond_the_first(limit: int, in_trial: int):
    limit = max(limit, SPEC.first)
    found = allowed(SPEC, trusted=limit, in_trial=in_trial, suspect=True)
    assert SPEC.first <= found <= max(SPEC.first, in_trial)
    assert found <= allowed(SPEC, trusted=limit, in_trial=in_trial, suspect=False) == limit


@given(limit=few, in_trial=few, missing=few)
def test_under_suspicion_it_goes_on_by_first_handfuls_beside_the_missing(
    limit: int, in_trial: int, missing: int
):
    missing = min(missing, in_trial)
    found = allowed(SPEC, trusted=limit, in_trial=in_trial, suspect=True, missing=missing)
    assert found == min(limit, max(SPEC.first + missing, in_trial))


def test_too_many_are_missing_when_chance_at_the_limit_seldom_takes_so_many():
    gate = GateSpec(max_silent_rate=0.01)
    assert not missed(gate, missing=0, due=0)
    assert missed(gate, missing=1, due=10)
    assert not missed(gate, missing=1, due=11)
    assert missed(gate, missing=9, due=500)
    assert not missed(gate, missing=8, due=500)
    assert not missed(gate, missing=9, due=1000)


def test_suspicion_is_evidence_that_leans_against_the_release():
    assert not suspicious(0.05, bad=0, size=0)
    assert not suspicious(0.05, bad=1, size=10)
    assert suspicious(0.05, bad=2, size=10)
    assert not suspicious(0.05, bad=30, size=1000)
    assert suspicious(0.05, bad=80, size=1000)
