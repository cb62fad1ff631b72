"""Sparse ticks are cheap and do not change decisions."""

from math import inf

import pytest

from edgefleet.sim.virtual import scenario as scenarios
from edgefleet.sim.virtual import tick_schedule
from edgefleet.sim.virtual.hub import SimHub
from edgefleet.sim.virtual.result import Result
from edgefleet.sim.virtual.run import Run
from edgefleet.sim.virtual.tick_schedule import TickSchedule

TICK_S = float(tick_schedule.LONGEST_TICK_S)


def looks(quiet: TickSchedule, marks: list[int]) -> list[int]:
    """The seconds with a tick. ``marks`` has the mark of each second."""
    found: list[int] = []
    for second, mark in enumerate(marks):
        quiet.update(second, mark)
        if second >= quiet.tick_at:
            found.append(second)
            quiet.ticked(second, inf)
    return found


def test_pauses_double_up_to_a_minute_while_nothing_happens() -> None:
    assert looks(TickSchedule(5, 0, 0), [0] * 300) == [0, 5, 15, 35, 75, 135, 195, 255]


def test_once_something_happens_the_next_moment_of_the_grid_counts() -> None:
    assert looks(TickSchedule(5, 0, 0), [0] * 82 + [1] * 30) == [0, 5, 15, 35, 75, 85, 90, 100]


def test_a_deadline_is_kept_to_the_tick() -> None:
    quiet = TickSchedule(5, 0, 0)
    looks(quiet, [0] * 76)
    quiet.ticked(76, 93.0)
    assert quiet.tick_at == 95


def played(name: str) -> Result:
    return Run(scenarios.load(name), name=name, devices=300, seed=7).play()


SLOW = ("windows_and_budgets", "long_soak", "by_hand")


@pytest.mark.parametrize(
    "name",
    [
        "halted",
        *(pytest.param(one, marks=pytest.mark.long) for one in SLOW),
    ],
)
def test_waves_open_as_they_do_without_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = played(name)
    monkeypatch.setattr(tick_schedule, "LONGEST_TICK_S", 5)
    dense = played(name)
    assert sparse.violated == dense.violated == ()
    assert (sparse.verdict, sparse.exposed) == (dense.verdict, dense.exposed)
    for one, other in zip(sparse.waves, dense.waves, strict=True):
        assert one.opened_s == pytest.approx(other.opened_s, abs=TICK_S * len(sparse.waves))


@pytest.mark.long
def test_a_long_wait_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[float] = []
    tick = SimHub.tick
    monkeypatch.setattr(SimHub, "tick", lambda hub, now: (looked.append(now), tick(hub, now)))
    result = played("halted")
    assert len(looked) < result.virtual_s / 5 / 2
