"""A watch continues while the hub is unreachable, and ends with the rollout."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.client.hub import HubClient
from edgefleet.client.watch import NoAnswer, Observed, watch
from edgefleet.protocol.rollout import BakeEnd, RolloutView, Status
from support.fake_reads import rollout_in


class Scripted(HubClient):
    """Returns the items of the script, in order."""

    def __init__(self, *script: RolloutView | Exception) -> None:
        super().__init__("http://hub", "")
        self.script: Iterator[RolloutView | Exception] = iter(script)

    def rollout(self, rollout_id: str) -> RolloutView:
        said = next(self.script)
        if isinstance(said, Exception):
            raise said
        return said


class Time:
    """A clock that advances with each sleep."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def view(status: Status) -> RolloutView:
    return rollout_in(status)


AWAY = NetworkError("unreachable", "Nothing answers.")


def see(client: HubClient, timeout_s: float | None = None) -> list[Observed | NoAnswer]:
    time = Time()
    return list(watch(client, "ro-1", clock=time, sleep=time.sleep, timeout_s=timeout_s))


@pytest.mark.parametrize("end", [Status.COMPLETED, Status.REVERTED, Status.REFUSED, Status.HALTED])
def test_it_ends_with_the_rollout(end: Status) -> None:
    script = [view(Status.PLANNED), view(Status.RUNNING), view(Status.PAUSED), view(end)]
    assert see(Scripted(*script, AssertionError("asked again"))) == [
        Observed(said) for said in script
    ]


def test_it_stays_through_the_bake_if_it_is_asked_to() -> None:
    time, baking = Time(), view(Status.COMPLETED)
    assert baking.bake is not None
    over = replace(baking, bake=replace(baking.bake, end=BakeEnd.PASSED))
    client = Scripted(view(Status.RUNNING), baking, baking, over, AssertionError("asked again"))
    seen = watch(client, "ro-1", clock=time, sleep=time.sleep, through_bake=True)
    assert [sight.view for sight in seen if isinstance(sight, Observed)][1:] == [
        baking,
        baking,
        over,
    ]


def test_a_hub_that_goes_away_is_waited_for_and_its_silence_counted() -> None:
    script = [view(Status.RUNNING), AWAY, AWAY, view(Status.RUNNING), AWAY, view(Status.COMPLETED)]
    seen = see(Scripted(*script))
    silent = [sight.since_s for sight in seen if isinstance(sight, NoAnswer)]
    assert silent == [1.0, 2.0, 1.0]
    assert seen[-1] == Observed(script[-1])


def test_an_address_that_never_answered_is_an_error_at_once() -> None:
    with pytest.raises(NetworkError):
        see(Scripted(AWAY))


def test_a_refusal_ends_it() -> None:
    gone = OperatorError("not_found", "There is no such rollout.")
    with pytest.raises(OperatorError):
        see(Scripted(view(Status.RUNNING), gone))


def test_it_stops_when_its_time_is_over() -> None:
    seen = see(Scripted(*[view(Status.RUNNING)] * 9), timeout_s=3)
    assert len(seen) == 4
