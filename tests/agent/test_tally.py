"""Telemetry is counted once, despite restarts and lost messages."""

from edgefleet.agent import limits
from edgefleet.agent import telemetry as tally
from edgefleet.agent.state import Mark
from edgefleet.protocol.device import Telemetry
from edgefleet.protocol.serving import ServingStatus
from support.agent_world import serving

Counted = tuple[tuple[Telemetry, ...], Mark | None]


def told(tallies: tuple[Telemetry, ...], mark: Mark | None, status: ServingStatus) -> Counted:
    (mine,) = status.models
    return tally.fold(tallies, status.pid, mine, tally.growth(mark, status.pid, mine))


def requests(counted: Counted) -> dict[str, int]:
    return {one.release: one.requests for one in counted[0]}


def test_only_growth_is_added() -> None:
    counted = told((), None, serving("1", requests=10))
    counted = told(*counted, serving("1", requests=15))
    counted = told(*counted, serving("1", requests=15))
    assert requests(counted) == {"1": 15}


def test_counters_that_start_anew_are_all_growth() -> None:
    counted = told((), None, serving("1", requests=10))
    counted = told(*counted, serving("1", requests=3))
    assert requests(counted) == {"1": 13}, "activated again in the same process"
    counted = told(*counted, serving("1", pid=101, requests=4))
    assert requests(counted) == {"1": 17}, "another process"


def test_each_release_has_its_own_and_the_oldest_goes_first() -> None:
    counted: Counted = ((), None)
    for release in ("1", "2", "3", "4"):
        counted = told(*counted, serving(release, requests=1))
    assert len(counted[0]) == limits.TALLIES
    assert requests(counted) == {"2": 1, "3": 1, "4": 1}


def test_what_came_after_the_sending_stays_when_the_answer_comes() -> None:
    tallies, mark = told((), None, serving("1", requests=10, errors=1))
    sent = tallies[0]
    tallies, mark = told(tallies, mark, serving("1", requests=14, errors=1))
    left = tally.subtract(tallies, sent)
    assert [(one.requests, one.errors) for one in left] == [(4, 0)]
    assert tally.subtract(left, left[0]) == ()


def test_confidence_adds_up() -> None:
    counted = told((), None, serving("1", requests=2, confidence_sum=1.5, confidence_count=2))
    tallies, _ = told(*counted, serving("1", requests=3, confidence_sum=2.25, confidence_count=3))
    assert (tallies[0].confidence_sum, tallies[0].confidence_count) == (2.25, 3)
