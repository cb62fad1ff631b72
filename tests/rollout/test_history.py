"""The limit of failures, where the releases before failed as often."""

import math

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.protocol.rollout import Evidence, GateSpec, History, Status, Verb, Verdict
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.evidence.history import lifted, upper_bound
from edgefleet.testing import Behaviour
from support.fleets import CheckedFleet
from support.plans import spec

ALPHA = 0.004


@pytest.mark.parametrize(("bad", "size"), [(0, 100), (3, 100), (50, 1000), (500, 10_000)])
def test_the_bound_is_that_of_clopper_and_pearson(bad: int, size: int):
    bound = upper_bound(bad, size, ALPHA)
    logs = [
        math.lgamma(size + 1) - math.lgamma(k + 1) - math.lgamma(size - k + 1)
        + k * math.log(bound) + (size - k) * math.log1p(-bound)
        for k in range(bad + 1)
    ]  # fmt: skip
    assert sum(map(math.exp, logs)) == pytest.approx(ALPHA, rel=1e-5)
    assert bad / size < bound < 1
    if not bad:
        assert bound == pytest.approx(1 - ALPHA ** (1 / size))
    assert upper_bound(size, size, ALPHA) == 1


def test_the_bound_is_seldom_below_the_rate():
    rng = np.random.default_rng(3)
    below = [upper_bound(int(bad), 300, ALPHA) < 0.06 for bad in rng.binomial(300, 0.06, 4000)]
    assert np.mean(below) <= 0.007


def test_a_history_lifts_the_limit_at_most_to_twice():
    assert lifted(10, 1000, 0.05, ALPHA) == 0.05
    assert lifted(30, 1000, 0.05, ALPHA) == pytest.approx(0.05, abs=0.001)
    assert lifted(50, 1000, 0.05, ALPHA) == pytest.approx(0.0705, abs=0.001)
    assert lifted(500, 10_000, 0.05, ALPHA) == pytest.approx(0.056, abs=0.001)
    assert lifted(300, 1000, 0.05, ALPHA) == 0.1


def test_a_history_that_says_little_lifts_nothing():
    assert lifted(0, 0, 0.05, ALPHA) == 0.05
    assert lifted(0, 30, 0.05, ALPHA) == 0.05
    assert lifted(9, 90, 0.05, ALPHA) == 0.05
    assert lifted(2, 100, 0.05, ALPHA) == 0.05
    assert lifted(9, 100, 0.05, ALPHA) == 0.1


def test_the_gate_judges_against_the_lifted_limit_and_says_so():
    spec = GateSpec()
    seen = Evidence(cut=1000, planned=1000, healthy=930, failed=70, exposed=1000)
    history = History(bad=50, size=1000, rollouts=("ro-1", "ro-0"), allowed=0.0705)

    def say(evidence: Evidence):
        return gate.judge(evidence, spec, opened_at=0.0, before=None, now=1.0)

    assert say(seen).verdict is Verdict.FAIL
    said = say(replace(seen, history=history))
    assert said.reason == "soak"
    assert said.evidence.errors.allowed == 0.0705
    failed = say(replace(seen, healthy=870, failed=130, history=history))
    assert failed.reason == "error_rate"
    assert failed.text == (
        "130 of 1000 devices failed (13 %), 7 % allowed. The plan allows 5 %; the last 2 releases "
        "that stood failed on 50 of 1000 devices, so up to 7 % is not the fault of this release."
    )


def play(fleet: CheckedFleet, release: str, fails: float, *, allowed: float = 0.3) -> str:
    """The rollout of a release that fails on a share of the devices, to its end."""
    fleet.publish(release, Behaviour(fails=fails))
    plan = spec(release, 100)
    rollout = fleet.start(replace(plan, gate=replace(plan.gate, max_error_rate=allowed)))
    fleet.finish(rollout)
    return rollout


def lifted_to(fleet: CheckedFleet, release: str, **plan: str) -> float:
    fleet.publish(release)
    rollout = fleet.plan(replace(spec(release, 100), **plan))
    allowed = fleet.engine.rollout(rollout).state.failures_allowed
    fleet.command(rollout, Verb.HALT)
    return allowed


def test_the_history_is_that_of_releases_that_stood():
    fleet = CheckedFleet(300)
    fleet.publish("1")
    fleet.install("1")
    assert lifted_to(fleet, "2") == 0.05
    stood = play(fleet, "3", 0.12)
    assert lifted_to(fleet, "4") == 0.1
    failed = play(fleet, "5", 0.4, allowed=0.05)
    assert fleet.engine.rollout(failed).state.status is Status.REVERTED
    assert lifted_to(fleet, "6") == 0.1
    history = max(fleet.states(), key=lambda state: state.created_at).history
    assert history is not None
    assert failed not in history.rollouts
    assert history.rollouts[0] == stood
    fleet.command(stood, Verb.REVERT)
    fleet.tick(60)
    assert lifted_to(fleet, "7") == 0.05  # it did not stand


def test_a_restart_keeps_the_limit_and_why_names_it():
    fleet = CheckedFleet(300)
    fleet.publish("1")
    fleet.install("1")
    play(fleet, "2", 0.12)
    fleet.publish("3")
    rollout = fleet.plan(spec("3", 100))
    fleet.restart()
    assert fleet.engine.rollout(rollout).state.failures_allowed == 0.1
    (wait,) = [one for one in fleet.why(rollout).waits if one.code is WaitCode.HISTORY]
    assert "The plan allows 5 %; the last 2 releases that stood failed on" in wait.text


def test_other_devices_have_no_part_in_the_history():
    fleet = CheckedFleet(300)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2", Behaviour(fails=0.3))
    plan = replace(spec("2", 100), selector="site=s0")
    fleet.finish(fleet.start(replace(plan, gate=replace(plan.gate, max_error_rate=0.6))))
    assert lifted_to(fleet, "3", selector="site=s1") == 0.05
    assert lifted_to(fleet, "4", selector="site=s0") > 0.05
