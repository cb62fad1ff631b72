"""Whole rollouts beside a previous release that is above a limit of the plan."""

from msgspec.structs import replace

from edgefleet.protocol.rollout import (
    ExposureSpec,
    GateSpec,
    RolloutSpec,
    RolloutView,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.why import Wait, WaitCode
from edgefleet.rollout.why.baseline import warnings
from edgefleet.testing import Behaviour, FakeFleet
from support.plans import spec

SLOW = Behaviour(latency_us=150_000)


def fleet_on(first: Behaviour, devices: int = 300) -> FakeFleet:
    """A fleet on which release 1 completed with limits that it keeps."""
    fleet = FakeFleet(devices)
    fleet.publish("1", first)
    plan = plan_of("1", max_latency_p95_ms=1000.0, max_memory_percent=100.0)
    finish(fleet, fleet.start(plan))
    assert fleet.states()[0].status is Status.COMPLETED
    return fleet


def finish(fleet: FakeFleet, rollout: str) -> RolloutView:
    return fleet.run(rollout, at_most_s=7200)


def plan_of(release: str, **gate: float) -> RolloutSpec:
    limits = GateSpec(soak_s=10, confirm_after_s=10, **gate)
    return spec(release, 20, 100, gate=limits, exposure=ExposureSpec(first=60))


def baseline(fleet: FakeFleet, rollout: str) -> list[Wait]:
    return [one for one in fleet.why(rollout).waits if one.code is WaitCode.BASELINE]


def test_the_plan_warns_with_the_measured_value_and_the_option():
    fleet = fleet_on(SLOW)
    fleet.publish("2", SLOW)
    rollout = fleet.plan(plan_of("2"))
    (wait,) = baseline(fleet, rollout)
    assert wait.text.startswith(
        "Release 1 is above a limit already: Latency, p95: 163.84 ms, `--max-latency-p95` is "
        "100 ms."
    )
    state = fleet.engine.rollout(rollout).state
    assert warnings(state) == (wait.text,)
    fleet.restart()
    assert baseline(fleet, rollout) == [wait]


def test_a_plan_with_a_limit_that_the_release_before_keeps_has_no_warning():
    fleet = fleet_on(SLOW)
    fleet.publish("2", SLOW)
    assert baseline(fleet, fleet.plan(plan_of("2", max_latency_p95_ms=200.0))) == []


def test_a_release_that_is_as_slow_as_the_one_before_completes():
    fleet = fleet_on(SLOW)
    fleet.publish("2", SLOW)
    rollout = fleet.start(plan_of("2"))
    view = finish(fleet, rollout)
    assert view.status is Status.COMPLETED
    assert view.evidence.limits.latency > 50  # above the limit, and not its fault


def test_a_release_that_needs_as_much_memory_as_the_one_before_completes():
    large = Behaviour(memory_mib=60)
    fleet = fleet_on(large)
    fleet.publish("2", large)
    view = finish(fleet, fleet.start(plan_of("2")))
    assert view.status is Status.COMPLETED
    fleet.publish("3", Behaviour())
    finish(fleet, fleet.start(plan_of("3")))
    fleet.publish("4", large)
    view = finish(fleet, fleet.start(plan_of("4")))
    assert (view.status, view.reason) == (Status.REVERTED, "memory")


def test_while_it_runs_the_control_says_what_the_release_before_does():
    fleet = FakeFleet(300)
    fleet.publish("1", SLOW)
    fleet.install("1")  # nothing was measured
    fleet.publish("2", SLOW)
    rollout = fleet.plan(plan_of("2"))
    assert baseline(fleet, rollout) == []
    fleet.command(rollout, Verb.START)
    fleet.tick(30)
    (wait,) = baseline(fleet, rollout)
    assert "Latency, p95: 163.84 ms" in wait.text


def test_a_restart_continues_the_pairs_of_windows():
    fleet = fleet_on(Behaviour())
    fleet.publish("2", Behaviour())
    plan = replace(plan_of("2"), waves=(WaveSpec(count=40), WaveSpec(percent=100)))
    rollout = fleet.start(plan)
    fleet.tick(70)
    before = fleet.engine.rollout(rollout)
    pairs = before.state.limit_pairs
    assert pairs["latency_limit"][0].pairs > 0
    fleet.restart()
    after = fleet.engine.rollout(rollout)
    assert after.cohorts.stored_pairs() == pairs
    assert after.cohorts.limits(has_previous=True).pairs == pairs
