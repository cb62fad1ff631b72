"""The bake after the last wave."""

from collections.abc import Callable

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import (
    BakeEnd,
    Evidence,
    GateSpec,
    Judgement,
    RolloutSpec,
    Status,
    Verb,
    Verdict,
    WaveSpec,
)
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.evidence.gate import judge
from edgefleet.testing import Behaviour, FakeDevice, FakeFleet, Fate
from support.plans import EVERYBODY

GATE = GateSpec(soak_s=0, confirm_after_s=10, patience_s=60)
BAD = Behaviour(error_rate=0.6)
QUICK = 60.0  # between two check-ins


def plan(release: str = "2", **fields: object) -> RolloutSpec:
    return RolloutSpec(model="digits", release=release, gate=GATE, exposure=EVERYBODY, **fields)


def baking(devices: int | list[FakeDevice], **fields: object) -> tuple[FakeFleet, str]:
    """A fleet after the last wave of release 2."""
    fleet = FakeFleet(devices, interval_s=QUICK, tick_s=10.0)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2")
    rollout = fleet.start(plan(**fields))
    view = fleet.run(rollout, at_most_s=7200)
    assert view.status is Status.COMPLETED
    return fleet, rollout


def until(fleet: FakeFleet, is_so: Callable[[], bool], at_most_s: float) -> float:
    """Let time pass until something is so. Returns the seconds that it took."""
    began = fleet.now
    while not is_so():
        assert fleet.now - began < at_most_s
        fleet.tick(10)
    return fleet.now - began


def end_of(fleet: FakeFleet, rollout: str) -> BakeEnd | None:
    bake = fleet.view(rollout).bake
    assert bake is not None
    return bake.end


def codes(fleet: FakeFleet, rollout: str) -> list[WaitCode]:
    return [wait.code for wait in fleet.why(rollout).waits]


def test_a_release_that_fails_late_is_rolled_back_by_itself() -> None:
    fleet, rollout = baking(100)
    assert fleet.on_release() == {"1": 3, "2": 97}
    fleet.tick(1800)
    fleet.publish("2", BAD)
    took_s = until(fleet, lambda: fleet.view(rollout).status is not Status.COMPLETED, 3600)
    assert took_s <= 900
    fleet.tick(300)
    view = fleet.view(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "request_errors")
    assert end_of(fleet, rollout) is BakeEnd.REVERTED
    assert fleet.on_release() == {"1": 100}
    with pytest.raises(OperatorError, match="2"):
        fleet.plan(plan())


def test_without_a_bake_it_is_not_found() -> None:
    fleet, rollout = baking(100, bake_s=0)
    assert fleet.view(rollout).bake is None
    assert fleet.on_release() == {"2": 100}
    fleet.publish("2", BAD)
    fleet.tick(1800)
    assert fleet.view(rollout).status is Status.COMPLETED


@pytest.mark.parametrize("every_s", [90, 150])
def test_a_hub_that_is_restarted_again_and_again_begins_no_bet_anew(every_s: int) -> None:
    """A restart loses the requests of the open window, never its begin and never the bets."""
    fleet, rollout = baking(100)
    fleet.publish("2", BAD)
    for number in range(20):
        fleet.tick(every_s)
        if fleet.view(rollout).status is not Status.COMPLETED:
            break
        shown = fleet.view(rollout).bake
        fleet.restart(reverse=number % 2 == 1)
        assert fleet.view(rollout).bake == shown
    assert fleet.view(rollout).status is not Status.COMPLETED
    assert number * every_s <= 1200


def test_an_outage_of_everybody_is_an_alert_and_never_a_rollback() -> None:
    fleet, rollout = baking(100)
    for release in ("1", "2"):
        fleet.publish(release, BAD)
    until(fleet, lambda: codes(fleet, rollout)[0] is WaitCode.BAKE_ALERT, 900)
    fleet.tick(1200)
    for release in ("1", "2"):
        fleet.publish(release)
    until(fleet, lambda: codes(fleet, rollout) == [WaitCode.BAKE], 1200)
    fleet.tick(600)
    assert fleet.view(rollout).status is Status.COMPLETED


@pytest.mark.parametrize("alone", [False, True])
def test_without_a_control_it_is_an_alert_unless_the_plan_says_so(alone: bool) -> None:
    fleet, rollout = baking(12, bake_revert_alone=alone)
    fleet.publish("2", BAD)
    fleet.tick(1200)
    if alone:
        assert fleet.view(rollout).status is Status.REVERTED
        return
    assert fleet.view(rollout).status is Status.COMPLETED
    assert codes(fleet, rollout) == [WaitCode.BAKE_ALERT, WaitCode.BAKE]
    assert fleet.why(rollout).for_a_person


def test_an_alert_holds_the_bake_and_every_device_that_has_not_begun() -> None:
    fleet, rollout = baking(20, bake_s=3600, follow=True)
    fleet.publish("2", BAD)
    until(fleet, lambda: WaitCode.BAKE_ALERT in codes(fleet, rollout), 900)
    newcomer = fleet.enrol(FakeDevice("newcomer"))
    fleet.tick(7200)
    assert newcomer.running is None
    assert [wait.code for wait in fleet.why_device("newcomer").waits] == [WaitCode.HOLDBACK]
    assert end_of(fleet, rollout) is None
    fleet.command(rollout, Verb.ADVANCE)
    assert end_of(fleet, rollout) is BakeEnd.BY_HAND
    fleet.tick(180)
    assert newcomer.running == "2"


def test_devices_held_back_are_control_until_the_bake_has_ended() -> None:
    fleet, rollout = baking(200, bake_s=1200)
    held = [device.name for device in fleet.by_row if device.running == "1"]
    assert len(held) == 3
    waits = fleet.why_device(held[0]).waits
    assert [wait.code for wait in waits] == [WaitCode.HOLDBACK]
    fleet.tick(1100)
    assert fleet.on_release() == {"1": 3, "2": 197}
    fleet.tick(400)
    assert fleet.on_release() == {"2": 200}
    assert codes(fleet, rollout) == [WaitCode.DONE]


@pytest.mark.parametrize(
    ("devices", "fields", "held"),
    [(99, {}, 0), (100, {}, 3), (500, {}, 5), (200, {"holdback_percent": 10}, 20), (200, {"bake_s": 0}, 0)],
)  # fmt: skip
def test_so_many_devices_are_held_back(devices: int, fields: dict[str, float], held: int) -> None:
    fleet, _ = baking(devices, **fields)
    assert fleet.on_release()["1"] == held


def test_the_first_release_of_a_model_holds_nothing_back() -> None:
    fleet = FakeFleet(100, interval_s=QUICK, tick_s=10.0)
    fleet.publish("1")
    rollout = fleet.start(plan("1"))
    fleet.run(rollout, at_most_s=7200)
    assert fleet.on_release() == {"1": 100}


def test_another_rollout_is_planned_in_the_bake_and_ends_it_when_it_starts() -> None:
    fleet, first = baking(20)
    fleet.publish("3")
    second = fleet.plan(plan("3"))
    fleet.tick(60)
    assert end_of(fleet, first) is None
    fleet.command(second, Verb.START)
    fleet.tick(20)
    assert end_of(fleet, first) is BakeEnd.SUPERSEDED
    fleet.publish("2", BAD)
    fleet.tick(1800)
    assert fleet.view(first).status is Status.COMPLETED
    assert fleet.view(second).status is Status.COMPLETED


def test_a_rollout_of_other_devices_ends_no_bake() -> None:
    sites = [FakeDevice(f"d{number}", labels={"site": "ab"[number % 2]}) for number in range(20)]
    fleet = FakeFleet(sites, interval_s=QUICK, tick_s=10.0)
    for release in ("1", "2", "3"):
        fleet.publish(release)
    fleet.install("1")
    first = fleet.start(plan("2", selector="site=a"))
    fleet.run(first, at_most_s=7200)
    fleet.start(plan("3", selector="site=b"))
    fleet.tick(60)
    assert end_of(fleet, first) is None
    assert fleet.view(first).bake is not None


def test_a_failure_of_outcomes_rolls_back_in_the_bake() -> None:
    def failing(evidence: Evidence, spec: GateSpec, **at: object) -> Judgement:
        judged = judge(evidence, spec, **at)  # type: ignore[arg-type]
        if now_bad:
            return Judgement(
                verdict=Verdict.FAIL, reason="mine", text="Mine.", at=judged.at, evidence=evidence
            )
        return judged

    now_bad: list[int] = []
    fleet = FakeFleet(20, interval_s=QUICK, tick_s=10.0, gate=failing)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2")
    rollout = fleet.start(plan())
    fleet.run(rollout, at_most_s=7200)
    fleet.tick(60)
    now_bad.append(1)
    fleet.tick(20)
    assert (fleet.view(rollout).status, fleet.view(rollout).reason) == (Status.REVERTING, "mine")


def test_a_bake_ends_although_each_evaluation_closes_a_window() -> None:
    fleet, rollout = baking(20, bake_s=110)  # windows shorter than the time between evaluations
    fleet.tick(60)
    bake = fleet.view(rollout).bake
    assert bake is not None
    assert bake.windows > 1
    fleet.tick(60)
    assert end_of(fleet, rollout) is BakeEnd.PASSED


@pytest.mark.parametrize("controls", [0, 3])
def test_after_the_bake_the_watch_alerts_and_rolls_nothing_back(controls: int) -> None:
    """Devices that failed their trial still run the previous release: they are a control."""
    devices = [FakeDevice(f"d{number}") for number in range(100)]
    for device in devices[:controls]:
        device.fates = {"2": Fate.FAILS}
    everyone = (WaveSpec(percent=100),)
    fleet, rollout = baking(devices, bake_s=1200, waves=everyone, holdback_percent=0)
    fleet.tick(2000)
    assert end_of(fleet, rollout) is BakeEnd.PASSED
    fleet.publish("2", BAD)
    until(fleet, lambda: WaitCode.BAKE_ALERT in codes(fleet, rollout), 1200)
    fleet.tick(600)
    assert fleet.view(rollout).status is Status.COMPLETED
    fleet.command(rollout, Verb.REVERT)
    fleet.tick(300)
    assert fleet.on_release() == {"1": 100}
