"""Equal devices are stepped as a group, with the same results as one by one."""

import math
from collections import Counter
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.agent.event import Event, TimerFired
from edgefleet.agent.state import AgentState
from edgefleet.protocol.rollout import ExposureSpec, RolloutSpec, WaveSpec
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual import scenario as scenarios
from edgefleet.sim.virtual.active_device import ActiveDevice
from edgefleet.sim.virtual.checkers import ALL
from edgefleet.sim.virtual.device_faults import DeviceFaults
from edgefleet.sim.virtual.observer import Checker
from edgefleet.sim.virtual.run import START, Run
from edgefleet.sim.virtual.scenario import Faults, Population, Scenario


def played(name: str, *, apart: bool) -> Run:
    wanted = scenarios.load(name)
    wanted = replace(wanted, fleet=replace(wanted.fleet, apart=apart, panel=20))
    run = Run(wanted, name=name, devices=1000, seed=3)
    run.result = run.play()
    return run


LONG = [pytest.param(one, marks=pytest.mark.long) for one in ("third_offline", "newcomers")]


@pytest.mark.parametrize("name", ["good", "refused", "by_hand", *LONG])
def test_together_or_apart_a_rollout_takes_the_same_course(name: str) -> None:
    together, apart = (played(name, apart=apart) for apart in (False, True))
    for run in (together, apart):
        assert run.result.violated == ()
        assert run.result.finished
    one, other = together.result, apart.result
    assert (one.verdict, one.reason) == (other.verdict, other.reason)
    for wave, same in zip(one.waves, other.waves, strict=True):
        assert (wave.verdict, wave.reason) == (same.verdict, same.reason)
        # Newcomers do not wait, and a wave may open a few seconds earlier.
        assert wave.cut == pytest.approx(same.cut, rel=0.01 if name == "newcomers" else 0)
    if one.verdict == "completed":
        assert one.exposed == other.exposed
    assert np.array_equal(together.serves(), apart.serves())


def test_a_bad_release_is_taken_back_from_devices_that_go_together() -> None:
    at_once = RolloutSpec(
        model="digits",
        release="2",
        waves=(WaveSpec(percent=100),),
        exposure=ExposureSpec(first=900),
    )
    wanted = replace(scenarios.load("bad"), rollout=at_once, fleet=Population(panel=0))
    run = Run(wanted, name="bad", devices=2000, seed=3)
    result = run.play()
    assert (result.verdict, result.violated) == ("reverted", ())
    assert 3 * result.stepped < result.steps
    assert set(run.serves().tolist()) == {1}


def test_a_device_with_a_fault_of_its_own_goes_alone() -> None:
    faults = Faults(thin=0.1, flapping=0.1, wrong_clocks=0.1, disk_full=0.1, offline=0.1)
    fleet = Population(panel=30)
    facts = DeviceFaults(Scenario(title="x", fleet=fleet, faults=faults), 500, 1, 0.0)
    rows = np.arange(500)
    plain = facts.plain(rows, 1.0)
    for row in rows[plain].tolist():
        assert facts.up(row, 1.0)
        assert facts.room(row, 1.0)
        assert facts.skew[row] == 0
        assert not facts.thin[row]
        assert not facts.panel[row]
        assert np.isinf(facts.up_s[row])
    assert 0 < plain.sum() < 350
    assert (
        facts.plain(rows, 1e9).sum() > plain.sum()
    )  # devices that were offline are like all others then


def test_a_bricked_device_does_nothing_any_more() -> None:
    wanted = replace(scenarios.load("bricks"), fleet=Population(panel=0))
    stepped_dead: list[int] = []

    class Watch(Checker):
        name = "bricked"

        def stepped(self, rows: Rows, event: Event, now: float) -> None:
            stepped_dead.extend(rows[run.facts.dead[rows]].tolist())

    run = Run(wanted, name="bricks", devices=1500, seed=3, checkers=(*ALL, Watch))
    result = run.play()
    assert result.faults["bricks"] > 0
    assert stepped_dead == []


def test_a_device_with_a_wrong_clock_is_not_woken_too_early() -> None:
    live, chance = ActiveDevice(np.array([3]), AgentState(), luck=0.5), Random(5)
    for _ in range(2000):
        live.skew = chance.randrange(-(2**39), 2**39) / 2**23  # up to 18 h; the difference rounds
        due = START + live.skew + chance.uniform(0.0, 100.0)
        at = live.true_time(due)
        assert math.nextafter(at, -math.inf) + live.skew <= due <= at + live.skew


def test_a_device_with_a_wrong_clock_is_not_woken_twice_for_one_timer() -> None:
    fired: Counter[tuple[int, float]] = Counter()

    class Watch(Checker):
        name = "woken"

        def stepped(self, rows: Rows, event: Event, now: float) -> None:
            if isinstance(event, TimerFired):
                fired.update((row, now) for row in rows.tolist())

    wanted = Scenario(title="x", faults=Faults(wrong_clocks=1.0), fleet=Population(panel=0))
    result = Run(wanted, name="x", devices=30, seed=2, checkers=(Watch,)).play()
    assert result.verdict == "completed"
    assert set(fired.values()) == {1}
