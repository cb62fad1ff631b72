"""Whole rollouts: the engine driven as by a hub, with toy devices in virtual time."""

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import RolloutView, Status, Verb
from edgefleet.protocol.why import WaitCode
from support.toy_rollout import GATE, Behaviour, ToyDevice, ToyShell, spec
from support.waiting import until


def shell_on_release_1(devices: int = 300, **how: bool) -> ToyShell:
    shell = ToyShell(devices, **how)
    shell.publish("1")
    shell.run(shell.start(spec("1", 100)))
    return shell


def waves(view: RolloutView) -> list[tuple[float, int | None, int]]:
    return [(wave.percent, wave.cut, wave.exposed) for wave in view.waves]


def test_a_good_release_goes_through_all_waves_to_all_devices():
    shell = shell_on_release_1()
    shell.publish("2")
    view = shell.run(shell.start(spec("2")))
    assert view.status is Status.COMPLETED
    assert waves(view) == [(1, 3, 3), (10, 30, 30), (100, 300, 300)]
    assert shell.on_release("2") == 300
    assert view.previous == "1"
    assert [wave.judgement.reason for wave in view.waves if wave.judgement] == ["passed"] * 3


def test_a_bad_release_is_caught_in_its_first_wave_and_goes_back():
    shell = shell_on_release_1(1000)
    shell.publish("2", Behaviour.FAILS_TRIAL)
    view = shell.run(shell.start(spec("2")))
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")
    assert view.exposed <= 10
    assert view.evidence.reasons == {"inference_errors": view.exposed}
    assert shell.on_release("1") == 1000


def test_devices_that_confirmed_a_bad_release_revert_as_well():
    shell = shell_on_release_1()
    shell.publish("2", lambda device: (
        Behaviour.FAILS_TRIAL if device.row % 2 else Behaviour.GOOD
    ))  # fmt: skip
    view = shell.run(shell.start(spec("2", 10, 100)))
    assert (view.status, view.wave) == (Status.REVERTED, None)
    assert view.evidence.reverted >= 1  # confirmed, and reverted
    assert shell.on_release("2") == 0
    assert shell.on_release("1") == 300


def test_a_release_that_turns_bad_in_the_second_wave_leaves_the_first_one_too():
    shell = shell_on_release_1()
    shell.publish("2")
    rollout = shell.start(spec("2", 10, 50, 100))
    canary = {d.row for d in shell.devices if shell.engine.admission.offers(d.row, shell.now)}
    shell.behaviour["2"] = lambda device: (
        Behaviour.GOOD if device.row in canary else Behaviour.FAILS_TRIAL
    )
    view = shell.run(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")
    assert [wave.cut for wave in view.waves] == [30, 150, None]
    assert view.waves[0].judgement is not None
    assert view.waves[0].judgement.reason == "passed"
    assert view.evidence.reverted == 30  # the canary had confirmed the release
    assert shell.on_release("1") == 300


def test_a_release_that_devices_refuse_ends_refused_without_exposure():
    shell = shell_on_release_1(1000)
    shell.publish("2", Behaviour.REFUSES)
    view = shell.run(shell.start(spec("2")))
    assert (view.status, view.reason) == (Status.REFUSED, "refused_by_devices")
    assert view.exposed == 0
    assert all(wave.exposed == 0 for wave in view.waves)
    assert view.evidence.reasons["golden_failed"] == view.evidence.refused
    assert shell.on_release("1") == 1000


def test_silence_after_activating_is_failure():
    shell = shell_on_release_1()
    shell.publish("2", Behaviour.GOES_SILENT)
    view = shell.run(shell.start(spec("2", 5, 100)))
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")
    judged = view.waves[0].judgement
    assert judged is not None
    assert judged.evidence.silent >= 2
    assert judged.evidence.reasons["silent"] == judged.evidence.silent
    assert view.evidence.silent == view.evidence.failed == view.exposed


def test_a_device_that_was_silent_and_turns_up_confirmed_is_healthy():
    shell = shell_on_release_1(20)
    shell.publish("2")
    rollout = shell.start(spec("2", 50, 100))
    away_from = shell.now + 3

    def tunnel(now: float) -> bool:
        return away_from < now < away_from + 14

    first = next(
        device for device in shell.devices if shell.engine.admission.offers(device.row, shell.now)
    )
    first.slow_s, first.away = 2, tunnel
    shell.tick()
    shell.settle(rollout, 13)
    assert shell.view(rollout).evidence.silent == 1
    view = shell.run(rollout)
    assert (view.status, view.evidence.failed) == (Status.COMPLETED, 0)


def test_offline_devices_neither_fail_nor_block_a_rollout():
    shell = shell_on_release_1()
    for device in shell.devices[::3]:
        device.away = lambda _now: True
    shell.tick(10)
    shell.publish("2")
    view = shell.run(shell.start(spec("2", 10, 100)))
    assert (view.status, view.evidence.failed) == (Status.COMPLETED, 0)
    assert view.evidence.not_begun == 100
    assert shell.on_release("2") == 200


def test_a_straggler_that_returns_after_the_end_still_gets_the_release():
    shell = shell_on_release_1()
    back = shell.now + 100
    shell.devices[7].away = lambda now: now < back
    shell.tick(10)
    shell.publish("2")
    rollout = shell.start(spec("2"))
    shell.run(rollout)
    assert shell.devices[7].running == "1"
    shell.now = back
    shell.settle(rollout, 5)
    assert shell.devices[7].running == "2"


def test_a_device_that_was_offline_during_the_revert_goes_back_when_it_returns():
    shell = shell_on_release_1()
    shell.publish("2", lambda device: (
        Behaviour.GOOD if device.row % 5 == 0 else Behaviour.FAILS_TRIAL
    ))  # fmt: skip
    rollout = shell.start(spec("2", 20, 100))

    def on_release_2() -> list[ToyDevice]:
        return [device for device in shell.devices if device.running == "2"]

    until(on_release_2, "No device started release 2.", between=shell.tick)
    lost = on_release_2()
    back = shell.now + 60
    for device in lost:
        if device.row % 5 == 0:
            device.away = lambda now: now < back
    view = shell.run(rollout)
    assert view.status is Status.REVERTED
    shell.now = back
    shell.settle(rollout, 5)
    assert shell.on_release("2") == 0


def test_slow_devices_are_waited_for_and_then_left_behind():
    shell = shell_on_release_1()
    for device in shell.devices[:10]:
        device.slow_s = 1000
    shell.publish("2")
    rollout = shell.start(spec("2", 50, 100))
    for _ in range(8):
        shell.tick()
    report = shell.engine.why_rollout(rollout, shell.now)
    assert report.waits[0].code is WaitCode.STRAGGLERS
    assert report.waits[0].until == pytest.approx(shell.now - 8 + GATE.patience_s, abs=1)
    view = shell.run(rollout)
    assert (view.status, view.evidence.failed) == (Status.COMPLETED, 0)


def test_deferred_devices_are_an_account_of_their_own():
    shell = shell_on_release_1()
    shell.publish("2", lambda device: (
        Behaviour.DEFERS if device.row % 4 == 0 else Behaviour.GOOD
    ))  # fmt: skip
    view = shell.run(shell.start(spec("2", 10, 100)))
    assert (view.status, view.evidence.deferred) == (Status.COMPLETED, 75)


def test_a_fleet_of_one_device_is_one_wave_and_the_equal_cuts_pass_at_once():
    shell = shell_on_release_1(1)
    shell.publish("2")
    view = shell.run(shell.start(spec("2")))
    assert view.status is Status.COMPLETED
    assert waves(view) == [(1, 1, 1), (10, 1, 1), (100, 1, 1)]
    reasons = [wave.judgement.reason for wave in view.waves if wave.judgement]
    assert reasons == ["passed", "same_cut", "same_cut"]


def test_a_fleet_of_one_device_goes_back_from_a_bad_release():
    shell = shell_on_release_1(1)
    shell.publish("2", Behaviour.FAILS_TRIAL)
    view = shell.run(shell.start(spec("2")))
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")
    assert shell.devices[0].running == "1"


def test_a_wave_without_reachable_devices_waits_and_why_names_it():
    shell = shell_on_release_1(50)
    for device in shell.devices:
        device.away = lambda _now: True
    shell.publish("2")
    rollout = shell.start(spec("2", 20, 100))
    view = shell.settle(rollout, 60)  # long after the patience
    assert view.status is Status.RUNNING
    wait = view.why.waits[0]
    assert (wait.code, wait.devices) == (WaitCode.SAMPLE, 10)
    assert "10 offline" in wait.text
    assert len(wait.first) == 5
    shell.command(rollout, Verb.ADVANCE)
    assert shell.view(rollout).wave == 1


def test_a_larger_wave_passes_on_what_the_smaller_ones_proved_when_its_own_are_away():
    shell = shell_on_release_1(100)
    shell.publish("2")
    rollout = shell.start(spec("2", 10, 100))
    while shell.view(rollout).wave != 1:
        shell.tick()
        if shell.view(rollout).evidence.healthy == 10:
            for device in shell.devices:
                device.away = lambda _now, took=device.running == "2": not took
    view = shell.run(rollout)
    assert (view.status, view.evidence.healthy, view.evidence.not_begun) == (
        Status.COMPLETED, 10, 90,
    )  # fmt: skip


def test_a_small_wave_with_one_device_away_passes_when_patience_is_over():
    shell = shell_on_release_1(30)
    shell.publish("2")
    rollout = shell.start(spec("2", 10, 100))
    inside = [
        device for device in shell.devices if shell.engine.admission.offers(device.row, shell.now)
    ]
    assert len(inside) == 3
    inside[0].away = lambda _now: True
    opened_at = shell.now
    while shell.view(rollout).wave == 0:
        shell.tick()
    assert shell.now - opened_at >= GATE.patience_s


def test_numbers_between_good_and_bad_wait_for_a_person():
    shell = shell_on_release_1(100)
    shell.publish("2")
    rollout = shell.start(spec("2", 20, 100))
    unlucky = [d for d in shell.devices if shell.engine.admission.offers(d.row, shell.now)][:2]
    shell.behaviour["2"] = lambda device: (
        Behaviour.FAILS_TRIAL if device in unlucky else Behaviour.GOOD
    )
    view = shell.settle(rollout, 60)
    assert view.status is Status.RUNNING  # 2 of 20: above 5 %, but not significantly
    assert view.why.waits[0].code is WaitCode.INCONCLUSIVE
    shell.command(rollout, Verb.ADVANCE)
    assert shell.run(rollout).status is Status.COMPLETED


def test_failures_before_the_sample_is_reached_wait_for_more_and_fail_once_patience_is_over():
    shell = shell_on_release_1(200)
    shell.publish("2", Behaviour.FAILS_TRIAL)
    rollout = shell.start(spec("2", 5, 100))
    inside = [
        device for device in shell.devices if shell.engine.admission.offers(device.row, shell.now)
    ]
    for device in inside[3:]:
        device.away = lambda _now: True
    view = shell.settle(rollout, 10)
    assert (view.status, view.evidence.failed) == (Status.RUNNING, 3)
    assert view.why.waits[0].code is WaitCode.SAMPLE
    view = shell.run(rollout)
    assert (view.status, view.reason, view.exposed) == (Status.REVERTED, "error_rate", 3)


def test_the_first_release_has_no_earlier_one_and_why_names_it():
    shell = ToyShell(20)
    shell.publish("1", lambda device: Behaviour.GOES_SILENT if device.row else Behaviour.GOOD)
    rollout = shell.start(spec("1", 100))
    view = shell.run(rollout)
    assert (view.status, view.previous) == (Status.REVERTED, None)
    assert view.why.waits[-1].code is WaitCode.NO_PREVIOUS_RELEASE
    assert "--release RELEASE" in view.why.waits[-1].text


def test_newcomers_wait_for_the_next_wave_and_the_wave_of_everyone_takes_them():
    shell = ToyShell(200)
    shell.publish("1")
    shell.run(shell.start(replace(spec("1", 100), follow=True)))
    shell.publish("2")
    rollout = shell.start(replace(spec("2", 50, 100), follow=True))
    newcomers = [shell.enrol(f"new{number}") for number in range(40)]
    for device in newcomers:
        (offer,) = shell.engine.admission.offers(device.row, shell.now)
        assert offer.release == "1"  # the baseline, not the release of the open rollout
    view = shell.run(rollout)
    assert waves(view)[0] == (50, 100, 100)
    assert view.waves[1].cut == 240
    late = shell.enrol("latecomer")
    (offer,) = shell.engine.admission.offers(late.row, shell.now)
    assert (offer.release, offer.rollout) == ("2", rollout)


def test_a_completed_rollout_takes_no_newcomers_unless_it_follows_them():
    shell = shell_on_release_1(50)
    rollout = shell.engine.states()[0].id
    late = shell.enrol("latecomer")
    assert shell.engine.admission.offers(late.row, shell.now) == ()
    wait = shell.engine.why_device(late.row, shell.now).waits[-1]
    assert (wait.code, rollout in wait.text) == (WaitCode.NOT_FOLLOWED, True)
    assert shell.engine.admission.offers(0, shell.now) == (), (
        "a device of the rollout keeps the release"
    )
    shell.restart()
    assert shell.engine.admission.offers(late.row, shell.now) == ()


def test_a_rollout_ends_although_newcomers_never_stop_coming():
    shell = shell_on_release_1(50)
    shell.publish("2")
    rollout = shell.start(spec("2", 100))
    for number in range(80):
        shell.enrol(f"new{number:03d}")
        shell.now += 1
        for device in shell.devices:
            shell.check_in(device)
        change = shell.engine.evaluate(rollout, shell.now)
        if change is not None:
            shell.commit(change)
        if rollout not in shell.engine.open_rollouts():
            break
    assert shell.view(rollout).status is Status.COMPLETED


def test_reports_sent_twice_are_counted_once():
    shell = shell_on_release_1(twice=True)
    shell.publish("2", lambda device: (
        Behaviour.FAILS_TRIAL if device.row % 2 else Behaviour.GOOD
    ))  # fmt: skip
    view = shell.run(shell.start(spec("2", 10, 100)))
    trials = sum(
        outcome.kind is OutcomeKind.TRIAL_STARTED and outcome.release == "2"
        for outcome in shell.stored_outcomes.values()
    )
    assert (view.status, view.exposed) == (Status.REVERTED, trials)


def test_the_demo_passes_by_itself_with_stragglers_offline():
    """A thousand devices: 8 % offline, some slow, some going on and off."""
    shell = ToyShell(1003)
    shell.publish("1")
    for device in shell.devices:
        if device.row % 12 == 0:
            device.away = lambda _now: True
        elif device.row % 50 == 1:
            device.slow_s = 6
        elif device.row % 50 == 2:
            device.away = lambda now: int(now) % 5 < 2
    first = shell.run(shell.start(spec("1", 100)))
    shell.publish("2")
    view = shell.run(shell.start(spec("2")), at_most_s=90)
    assert (first.status, view.status) == (Status.COMPLETED, Status.COMPLETED)
    assert [wave.cut for wave in view.waves] == [11, 101, 1003]
    assert view.evidence.failed == 0
    assert view.evidence.not_begun == 84
