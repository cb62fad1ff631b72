"""How many devices may hold an unconfirmed release at once."""

from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.rollout import ExposureSpec, GateSpec
from edgefleet.rollout.exposure import allowed, suspicious

SPEC = ExposureSpec(first=10, growth=1.0)
few = st.integers(0, 10_000)


def test_a_first_handful_and_then_as_many_as_have_confirmed_it():
    grown = [allowed(SPEC, healthy=healthy, in_trial=0, suspect=False) for healthy in (0, 5, 40)]
    assert grown == [10, 10, 40]


def test_growth_is_what_the_plan_says():
    assert allowed(ExposureSpec(first=1, growth=2.5), healthy=4, in_trial=0, suspect=False) == 10
    assert allowed(ExposureSpec(first=7, growth=0.0), healthy=99, in_trial=0, suspect=False) == 7


@given(healthy=few, in_trial=few)
def test_under_suspicion_nobody_is_added_beyond_the_first_handful(healthy: int, in_trial: int):
    limit = allowed(SPEC, healthy=healthy, in_trial=in_trial, suspect=True)
    assert SPEC.first <= limit <= max(SPEC.first, in_trial)
    assert limit <= allowed(SPEC, healthy=healthy, in_trial=in_trial, suspect=False)


def test_suspicion_is_evidence_that_leans_against_the_release():
    gate = GateSpec(max_error_rate=0.05)
    assert not suspicious(gate, bad=0, size=0)
    assert not suspicious(gate, bad=1, size=10)
    assert suspicious(gate, bad=2, size=10)
    assert not suspicious(gate, bad=30, size=1000)
    assert suspicious(gate, bad=80, size=1000)
