"""Blame for the end of the shared process, by the models that ran in it."""

from edgefleet.agent import limits
from edgefleet.agent.isolation import record
from edgefleet.agent.state import Crashes


def test_one_model_gets_a_worker_at_its_second_crash_within_an_hour() -> None:
    once = record(Crashes(), ("a",), 0.0)
    assert once.isolated == ()
    assert record(once, ("a",), limits.CRASHES_WITHIN_S - 1).isolated == ("a",)
    later = record(once, ("a",), limits.CRASHES_WITHIN_S + 1)
    assert later.isolated == ()
    assert record(later, ("a",), limits.CRASHES_WITHIN_S + 2).isolated == ("a",)
    assert record(once, ("b",), 1.0).isolated == ()


def test_several_models_are_not_blamed_and_each_gets_a_worker() -> None:
    crashes = record(Crashes(), ("a", "b"), 0.0)
    assert (crashes.last, crashes.isolated) == ((), ("a", "b"))


def test_without_a_running_model_none_is_blamed() -> None:
    once = record(Crashes(), ("a",), 0.0)
    assert record(once, (), 1.0) is once
