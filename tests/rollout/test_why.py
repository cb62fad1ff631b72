"""Waits: their codes, counts, times and names."""

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Phase
from edgefleet.protocol.rollout import Status, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.testing import Behaviour
from support.fleets import CheckedFleet, new_device
from support.plans import GATE, MODEL, spec


def fleet_on_release_1(devices: int = 100) -> CheckedFleet:
    fleet = CheckedFleet(devices)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2")
    return fleet


def codes(fleet: CheckedFleet, rollout: str) -> list[WaitCode]:
    return [wait.code for wait in fleet.why(rollout).waits]


def test_a_planned_rollout_waits_to_be_started():
    fleet = fleet_on_release_1()
    rollout = fleet.plan(spec("2"))
    report = fleet.why(rollout)
    assert report.about == f"rollout/{rollout}"
    assert report.waits[0].code is WaitCode.START
    assert rollout in report.line


def test_a_wave_that_just_opened_waits_for_a_sample_and_names_devices():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 20, 100))
    wait = fleet.why(rollout).waits[0]
    assert (wait.code, wait.devices) == (WaitCode.SAMPLE, 20)
    assert len(wait.first) == 5
    assert wait.until == fleet.now + GATE.patience_s
    assert "0 of the 5" in wait.text


def test_a_good_wave_says_until_when_it_soaks():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 20, 100))
    while codes(fleet, rollout)[0] is not WaitCode.SOAK:
        fleet.tick(1)
    wait = fleet.why(rollout).waits[0]
    assert (wait.since, wait.until) == (fleet.now, fleet.now + GATE.soak_s)


def test_devices_in_trial_and_those_away_are_waits_of_their_own():
    fleet = fleet_on_release_1()
    for device in fleet.by_row[:40]:
        device.offline = True
    fleet.tick(10)
    rollout = fleet.start(spec("2", 100))
    fleet.tick(1)
    report = fleet.why(rollout)
    waits = {wait.code: wait for wait in report.waits}
    assert waits[WaitCode.TRIAL].devices == 60
    assert waits[WaitCode.OFFLINE].devices == 40
    assert waits[WaitCode.OFFLINE].first == ("d00000", "d00001", "d00002", "d00003", "d00004")


def test_a_paused_rollout_says_so_first_and_then_what_the_wave_waits_for():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 20, 100))
    fleet.command(rollout, Verb.PAUSE)
    assert codes(fleet, rollout)[:2] == [WaitCode.PAUSED, WaitCode.SAMPLE]


def test_a_halted_rollout_names_how_many_have_the_release():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 20, 100))
    fleet.tick(1)
    fleet.command(rollout, Verb.HALT)
    report = fleet.why(rollout)
    assert (report.waits[0].code, report.waits[0].devices) == (WaitCode.HALTED, 20)


def test_a_revert_names_the_devices_that_still_revert_and_the_offline_ones():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 100))
    fleet.finish(rollout)
    for device in fleet.by_row[:3]:
        device.offline = True
    fleet.tick(10)
    fleet.command(rollout, Verb.REVERT)
    report = fleet.why(rollout)
    assert [(wait.code, wait.devices) for wait in report.waits] == [
        (WaitCode.REVERTING, 97),
        (WaitCode.OFFLINE, 3),
    ]
    view = fleet.finish(rollout)
    assert [(wait.code, wait.devices) for wait in view.why.waits] == [
        (WaitCode.DONE, None),
        (WaitCode.OFFLINE, 3),
    ]


def test_an_ended_rollout_waits_for_nothing():
    fleet = fleet_on_release_1()
    assert codes(fleet, "ro-1") == [WaitCode.DONE]


def device_wait(fleet: CheckedFleet, row: int) -> WaitCode:
    report = fleet.engine.why_device(row, fleet.now)
    assert report.about == f"device/{fleet.by_row[row].name}"
    assert report.line == report.waits[-1].text
    return report.waits[-1].code


def test_a_device_knows_why_it_runs_what_it_runs():
    fleet = CheckedFleet(50)
    fleet.publish("1")
    assert device_wait(fleet, 0) is WaitCode.NO_ROLLOUT
    rollout = fleet.start(spec("1", 20, 100))
    inside = [d for d in fleet.by_row if fleet.engine.admission.offers(d.row, fleet.now)]
    outside = next(d for d in fleet.by_row if d not in inside)
    assert device_wait(fleet, outside.row) is WaitCode.NEXT_WAVE
    assert device_wait(fleet, inside[0].row) is WaitCode.CHECK_IN
    inside[0].fetch_s = 5
    fleet.tick(1)
    fleet.engine.fleet.observe(inside[0].row, fleet.now, model=None, release=None,
                            phase=Phase.FETCHING)  # fmt: skip
    assert device_wait(fleet, inside[0].row) is WaitCode.FETCHING
    assert device_wait(fleet, inside[1].row) is WaitCode.TRIAL
    fleet.command(rollout, Verb.PAUSE)
    assert device_wait(fleet, outside.row) is WaitCode.PAUSED
    fleet.command(rollout, Verb.RESUME)
    fleet.finish(rollout)
    assert device_wait(fleet, outside.row) is WaitCode.DONE


def test_a_device_that_failed_a_release_is_not_offered_it_again():
    fleet = fleet_on_release_1()
    fleet.publish("2", Behaviour(fails=1))
    rollout = fleet.start(spec("2", 4, 100))
    inside = next(d for d in fleet.by_row if fleet.engine.admission.offers(d.row, fleet.now))
    for device in fleet.by_row:
        device.fetch_s = 0 if device is inside else 50
    fleet.settle(rollout, 4)
    assert fleet.view(rollout).status is Status.RUNNING
    assert device_wait(fleet, inside.row) is WaitCode.NOT_OFFERED


def test_why_of_a_reverting_device_names_the_earlier_release():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 100))
    fleet.finish(rollout)
    fleet.command(rollout, Verb.REVERT)
    assert device_wait(fleet, 4) is WaitCode.REVERTING
    assert "offered release 1" in fleet.engine.why_device(4, fleet.now).line


def test_a_device_that_does_not_check_in_says_since_when():
    fleet = fleet_on_release_1()
    last_seen = fleet.engine.fleet.last_seen(4)
    fleet.by_row[4].offline = True
    fleet.tick(100)
    assert last_seen == pytest.approx(fleet.now - 100, abs=1)
    report = fleet.engine.why_device(4, fleet.now)
    assert (report.waits[0].code, report.waits[0].since) == (WaitCode.OFFLINE, last_seen)
    never = fleet.enrol(new_device("never"))
    assert "never checked in" in fleet.engine.why_device(never.row, fleet.now).waits[0].text


def test_a_device_without_a_variant_says_so():
    fleet = fleet_on_release_1()
    fleet.start(spec("2", 20, 100))
    odd = fleet.enrol(new_device("odd", profile="coral_tpu"))
    fleet.engine.fleet.observe(odd.row, fleet.now, model=MODEL, release="1", phase=Phase.IDLE)
    report = fleet.engine.why_device(odd.row, fleet.now)
    assert "no variant for profile coral_tpu" in report.line


def test_why_of_a_release_names_its_rollout():
    fleet = fleet_on_release_1()
    report = fleet.engine.why_release(MODEL, "2", fleet.now)
    assert (report.about, report.waits[0].code) == (f"release/{MODEL}/2", WaitCode.NO_ROLLOUT)
    rollout = fleet.start(spec("2", 20, 100))
    report = fleet.engine.why_release(MODEL, "2", fleet.now)
    assert rollout in report.line
    assert fleet.engine.why_release(MODEL, "1", fleet.now).waits[0].code is WaitCode.DONE
    with pytest.raises(OperatorError):
        fleet.engine.why_release(MODEL, "9", fleet.now)
