"""A wave that cannot be judged takes more devices by itself, and looks are counted."""

import pytest
from msgspec.structs import replace

from edgefleet.protocol.rollout import (
    ApprovalSpec,
    ExposureSpec,
    RolloutSpec,
    Status,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.constraints import exposure
from edgefleet.testing import Fate
from support.fleets import CheckedFleet
from support.plans import GATE, spec

PLAN = spec("2", 5, 50, 100, exposure=ExposureSpec())


def fleet_on_release_1(devices: int) -> CheckedFleet:
    fleet = CheckedFleet(devices)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    return fleet


def started(fleet: CheckedFleet, plan: RolloutSpec, *, failing: int = 0) -> str:
    """A rollout of release 2, with which the first ``failing`` devices of its order fail."""
    fleet.publish("2")
    rollout = fleet.start(plan)
    scope = fleet.engine.rollout(rollout).scope
    first = sorted(fleet.by_row, key=lambda device: scope.position(device.row))[:failing]
    fleet.publish("2", fate=lambda device: Fate.FAILS if device in first else Fate.HEALTHY)
    return rollout


def watch(fleet: CheckedFleet, rollout: str, *, at_most_s: int = 600) -> list[int]:
    """Run to the end. Returns the unfinished devices at each second in an open handful."""
    unfinished: list[int] = []
    for _ in range(at_most_s):
        if rollout not in fleet.engine.open_rollouts():
            break
        fleet.tick(1)
        view = fleet.view(rollout)
        if view.wave is not None and view.waves[view.wave].by_handfuls:
            unfinished.append(view.evidence.offered + view.evidence.in_trial)
    return unfinished


def test_an_undecided_wave_goes_on_by_handfuls_and_then_as_planned():
    fleet = fleet_on_release_1(400)
    rollout = started(fleet, PLAN, failing=2)  # 2 of 20
    unfinished = watch(fleet, rollout)
    view = fleet.view(rollout)
    assert view.status is Status.COMPLETED
    handful = exposure.handful(PLAN.exposure, 400)
    assert 0 < max(unfinished) <= handful
    actions = [line.action for line in fleet.audit if line.about == f"rollout/{rollout}"]
    assert actions == ["plan", "start", "extend", "advance", "advance", "finish"][1:]
    reasons = [wave.judgement.reason for wave in view.waves if wave.judgement]
    assert reasons == ["extends", "passed", "passed"]
    assert [wave.cut for wave in view.waves] == [20, 200, 400]


def test_devices_of_a_handful_that_do_not_start_hold_the_rollout_for_its_patience_only():
    """The next ten devices of the order are online and download for ever."""
    fleet = fleet_on_release_1(400)
    plan = replace(PLAN, gate=replace(GATE, patience_s=30.0))
    rollout = started(fleet, plan, failing=2)  # 2 of 20
    scope = fleet.engine.rollout(rollout).scope
    order = sorted(fleet.by_row, key=lambda device: scope.position(device.row))
    for device in order[20:30]:
        device.fetch_s = 1e9
    watch(fleet, rollout, at_most_s=900)
    view = fleet.view(rollout)
    assert view.status is Status.COMPLETED
    assert view.evidence.healthy >= 400 - 2 - 10


def test_a_bad_release_is_rolled_back_from_the_handfuls():
    fleet = fleet_on_release_1(400)
    rollout = started(fleet, PLAN, failing=2)
    fleet.publish("2", fate=lambda device: Fate.FAILS if device.row % 5 == 0 else Fate.HEALTHY)
    watch(fleet, rollout)
    view = fleet.view(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")


def test_an_extension_never_passes_an_approval():
    fleet = fleet_on_release_1(400)
    plan = replace(PLAN, approval=ApprovalSpec(people=1, each_wave=True))
    rollout = started(fleet, plan, failing=2)
    fleet.approve(rollout, "ada")
    view = fleet.settle(rollout, 120)
    assert (view.status, view.wave, view.exposed) == (Status.RUNNING, 0, 20)
    assert view.why.waits[0].code is WaitCode.INCONCLUSIVE


def test_an_extension_never_passes_a_pause():
    fleet = fleet_on_release_1(400)
    rollout = started(fleet, PLAN, failing=2)
    fleet.tick(1.5)
    fleet.command(rollout, Verb.PAUSE)
    view = fleet.settle(rollout, 120)
    assert (view.status, view.wave) == (Status.PAUSED, 0)
    fleet.command(rollout, Verb.RESUME)
    assert fleet.finish(rollout).status is Status.COMPLETED


@pytest.mark.parametrize("devices", [3, 5, 8, 12, 30])
@pytest.mark.parametrize("away_after_s", [None, 0.5])
def test_a_fleet_with_any_one_device_off_completes(devices: int, away_after_s: float | None):
    for off in range(min(devices, 6)):
        fleet = fleet_on_release_1(devices)
        fleet.publish("2")
        if away_after_s is None:
            fleet.by_row[off].offline = True
            fleet.tick(5)
        rollout = fleet.start(spec("2"))
        if away_after_s is not None:
            fleet.tick(away_after_s)
            fleet.by_row[off].offline = True
        view = fleet.finish(rollout)
        assert view.status is Status.COMPLETED
        assert fleet.on_release()["2"] >= devices - 1


def test_the_next_positions_move_up_when_the_canary_goes_away():
    fleet = fleet_on_release_1(200)
    fleet.publish("2")
    waves = (WaveSpec(count=1), WaveSpec(percent=100))
    rollout = fleet.start(replace(spec("2"), waves=waves))
    scope = fleet.engine.rollout(rollout).scope
    canary, second, *_ = sorted(fleet.by_row, key=lambda device: scope.position(device.row))
    canary.offline = True
    view = fleet.settle(rollout, GATE.patience_s - 1)
    assert (view.exposed, view.waves[0].cut) == (0, 1)
    view = fleet.settle(rollout, 4)
    assert (view.exposed, view.waves[0].cut) == (1, 2)
    assert second.running == "2"
    moved = [line for line in fleet.audit if line.action == "move_up"]
    (only,) = moved
    assert only.detail == (
        "0 of the 1 devices that a verdict needs have finished. Moving up: 1 device at the next "
        "positions. Wave 1 of 2 is open: 1 device, 2 of 200 devices."
    )
    assert fleet.finish(rollout).status is Status.COMPLETED


def test_a_wave_is_cut_among_the_devices_that_are_online():
    fleet = fleet_on_release_1(200)
    for device in fleet.by_row[::2]:
        device.offline = True
    fleet.tick(5)
    fleet.publish("2")
    rollout = fleet.start(spec("2", 10, 100))
    wave = fleet.engine.rollout(rollout).state.waves[0]
    online = [device for device in fleet.by_row if not device.offline]
    scope = fleet.engine.rollout(rollout).scope
    threshold = int(wave.threshold or "", 16)
    assert wave.planned == sum(scope.position(d.row) < threshold for d in online) == 10
    assert wave.cut == sum(scope.position(d.row) < threshold for d in fleet.by_row)


def test_devices_that_return_one_at_a_time_are_not_one_look_each():
    fleet = fleet_on_release_1(60)
    away = fleet.by_row[10:40]
    for device in away:
        device.offline = True
    fleet.tick(5)
    plan = replace(spec("2", 100), gate=replace(GATE, ask_p=1.0))
    rollout = started(fleet, plan)
    fleet.publish("2", fate=lambda device: Fate.FAILS if device.row < 4 else Fate.HEALTHY)
    fleet.settle(rollout, 40)
    looks = [fleet.engine.rollout(rollout).state.looks]
    for device in away:
        device.offline = False
        fleet.settle(rollout, 10)
        looks.append(fleet.engine.rollout(rollout).state.looks)
    assert (looks[0], looks[-1]) == (1, 4)  # of 30, 38, 48 and 60 devices
    fleet.restart()
    fleet.settle(rollout, 10)
    assert fleet.engine.rollout(rollout).state.looks == 4
