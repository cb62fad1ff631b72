"""Waits: their codes, counts, times and names."""

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Phase
from edgefleet.protocol.rollout import Status, Verb
from edgefleet.protocol.why import WaitCode
from support.toy_rollout import GATE, MODEL, Behaviour, ToyShell, spec


def shell_on_release_1(devices: int = 100) -> ToyShell:
    shell = ToyShell(devices)
    shell.publish("1")
    shell.run(shell.start(spec("1", 100)))
    shell.publish("2")
    return shell


def codes(shell: ToyShell, rollout: str) -> list[WaitCode]:
    return [wait.code for wait in shell.engine.why_rollout(rollout, shell.now).waits]


def test_a_planned_rollout_waits_to_be_started():
    shell = shell_on_release_1()
    rollout = shell.plan(spec("2"))
    report = shell.engine.why_rollout(rollout, shell.now)
    assert report.about == f"rollout/{rollout}"
    assert report.waits[0].code is WaitCode.START
    assert rollout in report.line


def test_a_wave_that_just_opened_waits_for_a_sample_and_names_devices():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 20, 100))
    wait = shell.engine.why_rollout(rollout, shell.now).waits[0]
    assert (wait.code, wait.devices) == (WaitCode.SAMPLE, 20)
    assert len(wait.first) == 5
    assert wait.until == shell.now + GATE.patience_s
    assert "0 of the 5" in wait.text


def test_a_good_wave_says_until_when_it_soaks():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 20, 100))
    while codes(shell, rollout)[0] is not WaitCode.SOAK:
        shell.tick()
    wait = shell.engine.why_rollout(rollout, shell.now).waits[0]
    assert (wait.since, wait.until) == (shell.now, shell.now + GATE.soak_s)


def test_devices_in_trial_and_those_away_are_waits_of_their_own():
    shell = shell_on_release_1()
    for device in shell.devices[:40]:
        device.away = lambda _now: True
    shell.tick(10)
    rollout = shell.start(spec("2", 100))
    shell.tick()
    report = shell.engine.why_rollout(rollout, shell.now)
    waits = {wait.code: wait for wait in report.waits}
    assert waits[WaitCode.TRIAL].devices == 60
    assert waits[WaitCode.OFFLINE].devices == 40
    assert waits[WaitCode.OFFLINE].first == ("d00000", "d00001", "d00002", "d00003", "d00004")


def test_a_paused_rollout_says_so_first_and_then_what_the_wave_waits_for():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 20, 100))
    shell.command(rollout, Verb.PAUSE)
    assert codes(shell, rollout)[:2] == [WaitCode.PAUSED, WaitCode.SAMPLE]


def test_a_halted_rollout_names_how_many_have_the_release():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 20, 100))
    shell.tick()
    shell.command(rollout, Verb.HALT)
    report = shell.engine.why_rollout(rollout, shell.now)
    assert (report.waits[0].code, report.waits[0].devices) == (WaitCode.HALTED, 20)


def test_a_revert_names_the_devices_that_still_revert_and_the_offline_ones():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 100))
    shell.run(rollout)
    for device in shell.devices[:3]:
        device.away = lambda _now: True
    shell.tick(10)
    shell.command(rollout, Verb.REVERT)
    report = shell.engine.why_rollout(rollout, shell.now)
    assert [(wait.code, wait.devices) for wait in report.waits] == [
        (WaitCode.REVERTING, 97),
        (WaitCode.OFFLINE, 3),
    ]
    view = shell.run(rollout)
    assert [(wait.code, wait.devices) for wait in view.why.waits] == [
        (WaitCode.DONE, None),
        (WaitCode.OFFLINE, 3),
    ]


def test_an_ended_rollout_waits_for_nothing():
    shell = shell_on_release_1()
    assert codes(shell, "ro-1") == [WaitCode.DONE]


def device_wait(shell: ToyShell, row: int) -> WaitCode:
    report = shell.engine.why_device(row, shell.now)
    assert report.about == f"device/{shell.devices[row].name}"
    assert report.line == report.waits[-1].text
    return report.waits[-1].code


def test_a_device_knows_why_it_runs_what_it_runs():
    shell = ToyShell(50)
    shell.publish("1")
    assert device_wait(shell, 0) is WaitCode.NO_ROLLOUT
    rollout = shell.start(spec("1", 20, 100))
    inside = [d for d in shell.devices if shell.engine.admission.offers(d.row, shell.now)]
    outside = next(d for d in shell.devices if d not in inside)
    assert device_wait(shell, outside.row) is WaitCode.NEXT_WAVE
    assert device_wait(shell, inside[0].row) is WaitCode.CHECK_IN
    inside[0].slow_s = 5
    shell.tick()
    shell.engine.fleet.observe(inside[0].row, shell.now, model=None, release=None,
                            phase=Phase.FETCHING)  # fmt: skip
    assert device_wait(shell, inside[0].row) is WaitCode.FETCHING
    assert device_wait(shell, inside[1].row) is WaitCode.TRIAL
    shell.command(rollout, Verb.PAUSE)
    assert device_wait(shell, outside.row) is WaitCode.PAUSED
    shell.command(rollout, Verb.RESUME)
    shell.run(rollout)
    assert device_wait(shell, outside.row) is WaitCode.DONE


def test_a_device_that_failed_a_release_is_not_offered_it_again():
    shell = shell_on_release_1()
    shell.publish("2", Behaviour.FAILS_TRIAL)
    rollout = shell.start(spec("2", 4, 100))
    inside = next(d for d in shell.devices if shell.engine.admission.offers(d.row, shell.now))
    for device in shell.devices:
        device.slow_s = 0 if device is inside else 50
    shell.settle(rollout, 4)
    assert shell.view(rollout).status is Status.RUNNING
    assert device_wait(shell, inside.row) is WaitCode.NOT_OFFERED


def test_why_of_a_reverting_device_names_the_earlier_release():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 100))
    shell.run(rollout)
    shell.command(rollout, Verb.REVERT)
    assert device_wait(shell, 4) is WaitCode.REVERTING
    assert "offered release 1" in shell.engine.why_device(4, shell.now).line


def test_a_device_that_does_not_check_in_says_since_when():
    shell = shell_on_release_1()
    last_seen = shell.now
    shell.devices[4].away = lambda _now: True
    shell.tick(100)
    report = shell.engine.why_device(4, shell.now)
    assert (report.waits[0].code, report.waits[0].since) == (WaitCode.OFFLINE, last_seen)
    never = shell.enrol("never")
    assert "never checked in" in shell.engine.why_device(never.row, shell.now).waits[0].text


def test_a_device_without_a_variant_says_so():
    shell = shell_on_release_1()
    shell.start(spec("2", 20, 100))
    odd = shell.enrol("odd", profile="coral_tpu")
    shell.engine.fleet.observe(odd.row, shell.now, model=MODEL, release="1", phase=Phase.IDLE)
    report = shell.engine.why_device(odd.row, shell.now)
    assert "no variant for profile coral_tpu" in report.line


def test_why_of_a_release_names_its_rollout():
    shell = shell_on_release_1()
    report = shell.engine.why_release(MODEL, "2", shell.now)
    assert (report.about, report.waits[0].code) == (f"release/{MODEL}/2", WaitCode.NO_ROLLOUT)
    rollout = shell.start(spec("2", 20, 100))
    report = shell.engine.why_release(MODEL, "2", shell.now)
    assert rollout in report.line
    assert shell.engine.why_release(MODEL, "1", shell.now).waits[0].code is WaitCode.DONE
    with pytest.raises(OperatorError):
        shell.engine.why_release(MODEL, "9", shell.now)
