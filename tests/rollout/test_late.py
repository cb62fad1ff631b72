"""Failures that begin late, and devices that return late, on the whole engine."""

import numpy as np
import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import ExposureSpec, Rollback, RolloutView, Status, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.admission.control import allowed, limit_reason
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.testing import FakeDevice, Fate
from support.fleets import CheckedFleet
from support.plans import GATE, START, spec

HANDFULS = ExposureSpec(first=4, growth=1.0, ceiling=0.1)
DEVICES = 240
AWAY = 80
NOBODY = np.zeros(0, np.int64)
SOAKING = replace(GATE, soak_s=100.0)


def updating() -> CheckedFleet:
    fleet = CheckedFleet(DEVICES)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    return fleet


def failing(fleet: CheckedFleet) -> int:
    started = {one.row for one in fleet.outcomes if one.outcome.kind == "trial_failed"}
    return len(started)


def away(device: FakeDevice) -> bool:
    return device.row % 3 == 0


def with_a_third_away(*, gate=GATE, returns: bool = True) -> tuple[CheckedFleet, str]:
    """A good release for two thirds of the fleet; a third returns after a pause, and fails."""
    fleet = updating()
    for device in fleet.by_row:
        device.offline = away(device)
    fleet.tick(20)
    fleet.publish("2", fate=lambda device: Fate.FAILS if away(device) else Fate.HEALTHY)
    rollout = fleet.start(spec("2", 100, gate=gate, exposure=HANDFULS))
    fleet.tick(60)
    assert fleet.on_release()["2"] == DEVICES - AWAY
    if returns:
        for device in fleet.by_row:
            device.offline = False
    return fleet, rollout


def codes(view: RolloutView) -> set[WaitCode]:
    return {wait.code for wait in view.why.waits}


@pytest.mark.parametrize("bake_s", [0.0, 86_400.0])
def test_devices_lost_before_a_pause_do_not_keep_the_places_of_those_that_return(
    bake_s: float,
) -> None:
    """More devices are lost than may be in trial at once after the pause."""
    fleet = updating()
    for device in fleet.by_row:
        device.offline = away(device)
    fleet.tick(20)
    lost = [device.row for device in fleet.by_row if not away(device)][: HANDFULS.first + 1]
    fleet.publish("2", fate=lambda one: Fate.SILENT if one.row in lost else Fate.HEALTHY)
    gate = replace(GATE, max_error_rate=0.2, max_silent_rate=0.2, silence_s=20.0)
    plan = spec("2", 100, gate=gate, exposure=HANDFULS)
    rollout = fleet.start(replace(plan, bake_s=bake_s, holdback_percent=0.0))
    fleet.tick(120)
    assert fleet.view(rollout).evidence.silent == len(lost)
    for device in fleet.by_row:
        device.offline = False
    fleet.tick(120)
    assert fleet.on_release()["2"] >= DEVICES - len(lost)


def test_a_release_that_begins_to_fail_is_stopped_after_a_handful() -> None:
    fleet = updating()
    fleet.publish("2", fate=lambda device: Fate.FAILS if late else Fate.HEALTHY)
    late = False
    rollout = fleet.start(spec("2", 100, exposure=ExposureSpec(first=4, ceiling=0.03)))
    while fleet.on_release()["2"] < DEVICES * 2 // 3:
        fleet.tick(1)
    late = True
    view = fleet.finish(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "late_failures")
    assert failing(fleet) <= 14, "two times the seven of the ceiling"
    assert fleet.on_release()["1"] == DEVICES


def test_the_ceiling_bounds_what_is_in_trial_and_why_says_so() -> None:
    fleet = updating()
    fleet.publish("2")
    rollout = fleet.start(spec("2", 100, exposure=HANDFULS, gate=replace(GATE, confirm_after_s=5)))
    texts, most = [], 0
    for _ in range(60):
        view = fleet.settle(rollout, 1)
        most = max(most, view.evidence.in_trial)
        texts += [wait.text for wait in view.why.waits if wait.code is WaitCode.EXPOSURE]
    assert most == 24
    assert any("its ceiling, 10 % of 240 devices" in text for text in texts)


def test_devices_that_return_after_the_end_start_anew_and_are_held() -> None:
    fleet, rollout = with_a_third_away()
    view = fleet.settle(rollout, 60)
    assert view.status is Status.COMPLETED
    assert 0 < failing(fleet) <= 12
    assert fleet.on_release() == {"2": DEVICES - AWAY, "1": AWAY}
    assert WaitCode.LATE_FAILURES in codes(view)
    before = failing(fleet)
    fleet.restart(reverse=True)
    view = fleet.settle(rollout, 60)
    assert failing(fleet) == before, "a restart forgets nothing"
    assert WaitCode.LATE_FAILURES in codes(view)


def test_devices_that_return_and_are_well_all_get_the_release() -> None:
    fleet, rollout = with_a_third_away(returns=False)
    assert allowed(fleet.engine.rollout(rollout), fleet.now) == HANDFULS.first
    fleet.publish("2")
    for device in fleet.by_row:
        device.offline = False
    fleet.tick(1)
    assert fleet.engine.rollout(rollout).in_trial <= HANDFULS.first
    fleet.tick(100)
    assert fleet.on_release() == {"2": DEVICES}


def test_a_judged_rollout_is_taken_back_from_the_returned_alone() -> None:
    fleet, rollout = with_a_third_away(gate=SOAKING)
    view = fleet.settle(rollout, 30)
    assert (view.status, view.reason) == (Status.HALTED, "late_failures")
    assert "started after a pause failed, after 160 devices before them" in view.text
    assert fleet.on_release() == {"2": DEVICES - AWAY, "1": AWAY}
    assert WaitCode.LATE_FAILURES in codes(view)
    assert failing(fleet) <= 12
    fleet.restart(reverse=True)
    assert fleet.settle(rollout, 30).status is Status.HALTED
    assert fleet.on_release() == {"2": DEVICES - AWAY, "1": AWAY}


def test_the_plan_may_take_it_back_from_all() -> None:
    fleet, rollout = with_a_third_away(gate=replace(SOAKING, rollback=Rollback.ALL))
    view = fleet.finish(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "late_failures")
    assert fleet.on_release() == {"1": DEVICES}


def test_a_returned_device_that_was_well_goes_back_with_its_episode() -> None:
    fleet, rollout = with_a_third_away(gate=SOAKING, returns=False)
    fleet.publish("2", fate=lambda device: (
        Fate.FAILS if away(device) and device.row % 9 else Fate.HEALTHY
    ))  # fmt: skip
    for device in fleet.by_row:
        device.offline = False
    view = fleet.settle(rollout, 40)
    assert view.status is Status.HALTED
    active = fleet.engine.rollout(rollout)
    part = view_part(active.state.taken_back)
    rows = active.ledger.rows(DeviceStanding.REVERTED)
    assert len(rows)
    assert active.ledger.began_between(rows, *part).all()
    assert fleet.on_release() == {"2": DEVICES - AWAY, "1": AWAY}


def view_part(parts) -> tuple[float, float]:
    (part,) = parts
    return part.since, part.until


def test_a_person_may_let_more_devices_start_after_it() -> None:
    fleet, rollout = with_a_third_away(gate=SOAKING)
    fleet.settle(rollout, 30)
    assert fleet.view(rollout).status is Status.HALTED
    failed = failing(fleet)
    fleet.publish("2")
    fleet.tick(20)
    fleet.command(rollout, Verb.RESUME)
    view = fleet.settle(rollout, 150)
    assert view.status is Status.COMPLETED
    assert failing(fleet) == failed
    assert fleet.on_release()["2"] >= DEVICES - AWAY + 50


def test_the_limit_does_not_grow_while_the_last_devices_fail() -> None:
    fleet = updating()
    fleet.publish("2", fate=lambda device: Fate.FAILS if late else Fate.HEALTHY)
    late = False
    rollout = fleet.start(spec("2", 100, exposure=HANDFULS))
    active = fleet.engine.rollout(rollout)
    while fleet.on_release()["2"] < DEVICES // 2:
        fleet.tick(1)
    assert allowed(active, fleet.now) == 24
    newest = active.ledger.newest_first(active.ledger.rows(DeviceStanding.TRIAL))
    for failed in newest.tolist():
        fleet.report(fleet.by_row[failed].name, rollout, OutcomeKind.TRIAL_FAILED)
        fleet.evaluate()
        if active.late.brakes:
            break
    assert fleet.view(rollout).status is Status.RUNNING
    limit = allowed(active, fleet.now)
    assert limit == max(HANDFULS.first, active.in_trial) < 24
    assert "more of the last devices fail than allowed" in limit_reason(active, fleet.now)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_restart_in_the_middle_changes_no_limit(reverse: bool) -> None:
    fleet = updating()
    fleet.publish("2", fate=lambda device: (
        Fate.FAILS if device.row % 7 == 0 else Fate.HEALTHY
    ))  # fmt: skip
    rollout = fleet.start(spec("2", 100, exposure=HANDFULS, gate=replace(GATE, max_error_rate=0.2)))
    for _ in range(12):
        fleet.tick(2)
        fleet.evaluate()
        before = fleet.engine.rollout(rollout)
        fleet.restart(reverse=reverse)
        after = fleet.engine.rollout(rollout)
        assert after.ledger.activations.begun().tolist() == (
            before.ledger.activations.begun().tolist()
        )
        assert after.late.brakes == before.late.brakes
        assert after.late.failures(NOBODY) == before.late.failures(NOBODY)
        assert allowed(after, fleet.now) == allowed(before, fleet.now)
    assert fleet.now > START
