"""Whole rollouts: the engine driven as by a hub, with fake devices in virtual time."""

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind, Phase
from edgefleet.protocol.rollout import ExposureSpec, RolloutView, Status, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.testing import Behaviour, FakeDevice, Fate
from support.fleets import CheckedFleet, memory_hub, new_device
from support.plans import GATE, MODEL, outcome, spec
from support.waiting import until


def fleet_on_release_1(devices: int = 300, *, twice: bool = False) -> CheckedFleet:
    fleet = CheckedFleet(devices, twice=twice)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    return fleet


def waves(view: RolloutView) -> list[tuple[float, int | None, int]]:
    return [(wave.percent, wave.cut, wave.exposed) for wave in view.waves]


def test_a_good_release_goes_through_all_waves_to_all_devices():
    fleet = fleet_on_release_1()
    fleet.publish("2")
    view = fleet.finish(fleet.start(spec("2")))
    assert view.status is Status.COMPLETED
    assert waves(view) == [(1, 3, 3), (10, 30, 30), (100, 300, 300)]
    assert fleet.on_release()["2"] == 300
    assert view.previous == "1"
    assert [wave.judgement.reason for wave in view.waves if wave.judgement] == ["passed"] * 3


def test_a_bad_release_is_caught_in_its_first_wave_and_goes_back():
    fleet = fleet_on_release_1(1000)
    fleet.publish("2", Behaviour(fails=1))
    view = fleet.finish(fleet.start(spec("2")))
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")
    assert view.exposed <= 10
    assert view.evidence.reasons == {"inference_errors": view.exposed}
    assert fleet.on_release()["1"] == 1000


def test_devices_that_confirmed_a_bad_release_revert_as_well():
    fleet = fleet_on_release_1()
    fleet.publish("2", fate=lambda device: (
        Fate.FAILS if device.row % 2 else Fate.HEALTHY
    ))  # fmt: skip
    view = fleet.finish(fleet.start(spec("2", 10, 100)))
    assert (view.status, view.wave) == (Status.REVERTED, None)
    assert view.evidence.reverted >= 1  # confirmed, and reverted
    assert fleet.on_release()["2"] == 0
    assert fleet.on_release()["1"] == 300


def test_a_release_that_turns_bad_in_the_second_wave_leaves_the_first_one_too():
    fleet = fleet_on_release_1()
    fleet.publish("2")
    rollout = fleet.start(spec("2", 10, 50, 100))
    canary = {d.row for d in fleet.by_row if fleet.engine.admission.offers(d.row, fleet.now)}
    fleet.publish("2", fate=lambda device: Fate.HEALTHY if device.row in canary else Fate.FAILS)
    view = fleet.finish(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")
    assert [wave.cut for wave in view.waves] == [30, 150, None]
    assert view.waves[0].judgement is not None
    assert view.waves[0].judgement.reason == "passed"
    assert view.evidence.reverted == 30  # the canary had confirmed the release
    assert fleet.on_release()["1"] == 300


def test_a_release_that_devices_refuse_ends_refused_without_exposure():
    fleet = fleet_on_release_1(1000)
    fleet.publish("2", Behaviour(refuses=1))
    view = fleet.finish(fleet.start(spec("2")))
    assert (view.status, view.reason) == (Status.REFUSED, "refused_by_devices")
    assert view.exposed == 0
    assert all(wave.exposed == 0 for wave in view.waves)
    assert view.evidence.reasons["golden_failed"] == view.evidence.refused
    assert fleet.on_release()["1"] == 1000


def test_silence_after_activating_is_failure():
    fleet = fleet_on_release_1()
    fleet.publish("2", Behaviour(silent=1))
    view = fleet.finish(fleet.start(spec("2", 5, 100)))
    assert (view.status, view.reason) == (Status.REVERTED, "error_rate")
    judged = view.waves[0].judgement
    assert judged is not None
    assert judged.evidence.silent >= 2
    assert judged.evidence.reasons["silent"] == judged.evidence.silent
    assert view.evidence.silent == view.evidence.failed == view.exposed


def test_a_device_that_was_silent_and_turns_up_confirmed_is_healthy():
    fleet = fleet_on_release_1(20)
    fleet.publish("2")
    rollout = fleet.start(spec("2", 50, 100))
    away_from = fleet.now + 3

    def tunnel(now: float) -> bool:
        return away_from < now < away_from + 14

    first = next(
        device for device in fleet.by_row if fleet.engine.admission.offers(device.row, fleet.now)
    )
    first.fetch_s, first.offline = 2, tunnel
    fleet.tick(1)
    fleet.settle(rollout, 13)
    assert fleet.view(rollout).evidence.silent == 1
    fleet.finish(rollout)
    view = fleet.settle(rollout, 10)
    assert (view.status, view.evidence.failed) == (Status.COMPLETED, 0)


def test_offline_devices_neither_fail_nor_block_a_rollout():
    fleet = fleet_on_release_1()
    for device in fleet.by_row[::3]:
        device.offline = True
    fleet.tick(10)
    fleet.publish("2")
    view = fleet.finish(fleet.start(spec("2", 10, 100)))
    assert (view.status, view.evidence.failed) == (Status.COMPLETED, 0)
    assert view.evidence.not_begun == 100
    assert fleet.on_release()["2"] == 200


def test_a_wave_that_opens_while_no_device_is_online_is_a_share_of_all():
    fleet = fleet_on_release_1()
    back = fleet.now + 100
    for device in fleet.by_row:
        device.offline = lambda now: now < back
    fleet.tick(50)
    fleet.publish("2")
    rollout = fleet.start(spec("2", 10, 100))
    assert fleet.view(rollout).waves[0].cut == 30
    fleet.jump(back - fleet.now)
    view = fleet.finish(rollout)
    assert (view.status, view.evidence.failed) == (Status.COMPLETED, 0)
    assert fleet.on_release()["2"] == 300


def test_a_straggler_that_returns_after_the_end_still_gets_the_release():
    fleet = fleet_on_release_1()
    back = fleet.now + 100
    fleet.by_row[7].offline = lambda now: now < back
    fleet.tick(10)
    fleet.publish("2")
    rollout = fleet.start(spec("2"))
    fleet.finish(rollout)
    assert fleet.by_row[7].running == "1"
    fleet.jump(back - fleet.now)
    fleet.settle(rollout, 5)
    assert fleet.by_row[7].running == "2"


def test_a_device_that_was_offline_during_the_revert_goes_back_when_it_returns():
    fleet = fleet_on_release_1()
    fleet.publish("2", fate=lambda device: (
        Fate.HEALTHY if device.row % 5 == 0 else Fate.FAILS
    ))  # fmt: skip
    rollout = fleet.start(spec("2", 20, 100))

    def on_release_2() -> list[FakeDevice]:
        return [device for device in fleet.by_row if device.running == "2"]

    until(on_release_2, "No device started release 2.", between=lambda: fleet.tick(1))
    lost = on_release_2()
    back = fleet.now + 60
    for device in lost:
        if device.row % 5 == 0:
            device.offline = lambda now: now < back
    view = fleet.finish(rollout)
    assert view.status is Status.REVERTED
    fleet.jump(back - fleet.now)
    fleet.settle(rollout, 5)
    assert fleet.on_release()["2"] == 0


def test_slow_devices_are_waited_for_and_then_left_behind():
    fleet = fleet_on_release_1()
    for device in fleet.by_row[:10]:
        device.fetch_s = 1000
    fleet.publish("2")
    rollout = fleet.start(spec("2", 50, 100))
    for _ in range(8):
        fleet.tick(1)
    report = fleet.why(rollout)
    assert report.waits[0].code is WaitCode.STRAGGLERS
    last_start = max(
        stored.at for stored in fleet.outcomes if stored.outcome.kind is OutcomeKind.TRIAL_STARTED
    )
    assert report.waits[0].until == last_start + GATE.patience_s
    assert last_start == pytest.approx(fleet.now - 7, abs=1)
    view = fleet.finish(rollout)
    assert (view.status, view.evidence.failed) == (Status.COMPLETED, 0)


def test_deferred_devices_are_an_account_of_their_own():
    fleet = fleet_on_release_1()
    fleet.publish("2", fate=lambda device: (
        Fate.DEFERS if device.row % 4 == 0 else Fate.HEALTHY
    ))  # fmt: skip
    view = fleet.finish(fleet.start(spec("2", 10, 100)))
    assert (view.status, view.evidence.deferred) == (Status.COMPLETED, 75)


def test_a_fleet_of_one_device_is_one_wave_and_the_equal_cuts_pass_at_once():
    fleet = fleet_on_release_1(1)
    fleet.publish("2")
    view = fleet.finish(fleet.start(spec("2")))
    assert view.status is Status.COMPLETED
    assert waves(view) == [(1, 1, 1), (10, 1, 1), (100, 1, 1)]
    reasons = [wave.judgement.reason for wave in view.waves if wave.judgement]
    assert reasons == ["passed", "same_cut", "same_cut"]


def test_one_failure_in_a_fleet_of_one_is_left_to_a_person():
    fleet = fleet_on_release_1(1)
    fleet.publish("2", Behaviour(fails=1))
    view = fleet.settle(fleet.start(spec("2")), 60)
    assert (view.status, view.why.waits[0].code) == (Status.RUNNING, WaitCode.INCONCLUSIVE)
    assert fleet.by_row[0].running == "1"  # it rolled back by itself


def test_a_wave_without_reachable_devices_waits_and_why_names_it():
    fleet = fleet_on_release_1(50)
    for device in fleet.by_row:
        device.offline = True
    fleet.publish("2")
    rollout = fleet.start(spec("2", 20, 100))
    view = fleet.settle(rollout, 60)  # long after the patience
    assert view.status is Status.RUNNING
    wait = view.why.waits[0]
    assert (wait.code, wait.devices) == (WaitCode.SAMPLE, 10)
    assert "10 offline" in wait.text
    assert len(wait.first) == 5
    fleet.command(rollout, Verb.ADVANCE)
    assert fleet.view(rollout).wave == 1


def test_a_larger_wave_passes_on_what_the_smaller_ones_proved_when_its_own_are_away():
    fleet = fleet_on_release_1(100)
    fleet.publish("2")
    rollout = fleet.start(spec("2", 10, 100))
    while fleet.view(rollout).wave != 1:
        fleet.tick(1)
        if fleet.view(rollout).evidence.healthy == 10:
            for device in fleet.by_row:
                device.offline = device.running != "2"
    view = fleet.finish(rollout)
    assert (view.status, view.evidence.healthy, view.evidence.not_begun) == (
        Status.COMPLETED, 10, 90,
    )  # fmt: skip


def test_a_small_wave_with_one_device_away_passes_when_patience_is_over():
    fleet = fleet_on_release_1(30)
    fleet.publish("2")
    rollout = fleet.start(spec("2", 10, 100))
    inside = [
        device for device in fleet.by_row if fleet.engine.admission.offers(device.row, fleet.now)
    ]
    assert len(inside) == 3
    inside[0].offline = True
    opened_at = fleet.now
    while fleet.view(rollout).wave == 0:
        fleet.tick(1)
    assert fleet.now - opened_at >= GATE.patience_s


def test_a_wave_between_good_and_bad_takes_more_devices_and_needs_no_person():
    fleet = fleet_on_release_1(100)
    fleet.publish("2")
    rollout = fleet.start(spec("2", 20, 100, exposure=ExposureSpec()))
    unlucky = [d for d in fleet.by_row if fleet.engine.admission.offers(d.row, fleet.now)][:2]
    fleet.publish("2", fate=lambda device: Fate.FAILS if device in unlucky else Fate.HEALTHY)
    view = fleet.finish(rollout)  # 2 of 20: above 5 %, but not significantly
    assert view.status is Status.COMPLETED
    extensions = [line for line in fleet.audit if line.action == "extend"]
    assert [(line.actor, line.about) for line in extensions] == [("gate", f"rollout/{rollout}")]
    assert extensions[0].detail == (
        "Inference errors on 2 devices, such as d00004. 2 of 20 devices failed (10 %), 5 % allowed; "
        "too few devices for a verdict. The wave takes more devices. Wave 2 of 2 is open by "
        "handfuls: 100 %, 30 of 100 devices."
    )


def test_failures_before_the_sample_is_reached_wait_for_more_and_fail_once_patience_is_over():
    fleet = fleet_on_release_1(200)
    fleet.publish("2", Behaviour(fails=1))
    rollout = fleet.start(spec("2", 5, 100))
    inside = [
        device for device in fleet.by_row if fleet.engine.admission.offers(device.row, fleet.now)
    ]
    for device in inside[3:]:
        device.offline = True
    view = fleet.settle(rollout, 10)
    assert (view.status, view.evidence.failed) == (Status.RUNNING, 3)
    assert view.why.waits[0].code is WaitCode.SAMPLE
    view = fleet.finish(rollout)
    assert (view.status, view.reason, view.exposed) == (Status.REVERTED, "error_rate", 3)


def test_the_first_release_has_no_earlier_one_and_why_names_it():
    fleet = CheckedFleet(20)
    fleet.publish("1", fate=lambda device: Fate.SILENT if device.row else Fate.HEALTHY)
    rollout = fleet.start(spec("1", 100))
    view = fleet.finish(rollout)
    assert (view.status, view.previous) == (Status.REVERTED, None)
    assert view.why.waits[-1].code is WaitCode.NO_PREVIOUS_RELEASE
    assert "--release RELEASE" in view.why.waits[-1].text


def test_the_revert_of_a_first_release_says_how_many_devices_keep_it():
    fleet = CheckedFleet(20)
    fleet.publish("1")
    rollout = fleet.start(spec("1", 100))
    fleet.finish(rollout)
    fleet.command(rollout, Verb.REVERT)
    assert "Devices that keep the release: 20." in fleet.why(rollout).line
    view = fleet.finish(rollout)
    assert view.text.endswith("20 devices keep the release, without a previous one to return to.")
    assert fleet.on_release() == {"1": 20}


def test_a_revert_says_how_many_devices_keep_the_release_by_another_rollout():
    hub = memory_hub(4, "1", "2")
    for row in range(4):
        hub.engine.fleet.observe(row, hub.now, model=MODEL, release="2", phase=Phase.IDLE)
    first = hub.start(spec("2", 100))
    hub.record(3, outcome(first, "2", OutcomeKind.TRIAL_FAILED))
    hub.command(first, Verb.ADVANCE)
    hub.command(hub.start(replace(spec("2", 100), again="a new lens")), Verb.ADVANCE)
    hub.command(first, Verb.REVERT)
    hub.evaluate()
    view = hub.view(first)
    assert view.status is Status.REVERTED
    assert view.text.endswith("4 devices keep the release, which another rollout gives.")


def test_newcomers_wait_for_the_next_wave_and_the_wave_of_everyone_takes_them():
    fleet = CheckedFleet(200)
    fleet.publish("1")
    fleet.finish(fleet.start(replace(spec("1", 100), follow=True)))
    fleet.publish("2")
    rollout = fleet.start(replace(spec("2", 50, 100), follow=True))
    newcomers = [fleet.enrol(new_device(f"new{number}")) for number in range(40)]
    for device in newcomers:
        (offer,) = fleet.engine.admission.offers(device.row, fleet.now)
        assert offer.release == "1"  # the baseline, not the release of the open rollout
    view = fleet.finish(rollout)
    assert waves(view)[0] == (50, 100, 100)
    assert view.waves[1].cut == 240
    late = fleet.enrol(new_device("latecomer"))
    (offer,) = fleet.engine.admission.offers(late.row, fleet.now)
    assert (offer.release, offer.rollout) == ("2", rollout)


def test_a_completed_rollout_takes_no_newcomers_unless_it_follows_them():
    fleet = fleet_on_release_1(50)
    rollout = fleet.engine.states()[0].id
    late = fleet.enrol(new_device("latecomer"))
    assert fleet.engine.admission.offers(late.row, fleet.now) == ()
    wait = fleet.engine.why_device(late.row, fleet.now).waits[-1]
    assert (wait.code, rollout in wait.text) == (WaitCode.NOT_FOLLOWED, True)
    assert fleet.engine.admission.offers(0, fleet.now) == (), (
        "a device of the rollout keeps the release"
    )
    fleet.restart()
    assert fleet.engine.admission.offers(late.row, fleet.now) == ()


def test_a_rollout_ends_although_newcomers_never_stop_coming():
    fleet = fleet_on_release_1(50)
    fleet.publish("2")
    rollout = fleet.start(spec("2", 100))
    fleet.invariants.check_soak = lambda *_: None  # newcomers confirm during the soak
    for number in range(80):
        fleet.enrol(new_device(f"new{number:03d}"))
        fleet.tick(1)
        if rollout not in fleet.engine.open_rollouts():
            break
    assert fleet.view(rollout).status is Status.COMPLETED


def test_reports_sent_twice_are_counted_once():
    fleet = fleet_on_release_1(twice=True)
    fleet.publish("2", fate=lambda device: (
        Fate.FAILS if device.row % 2 else Fate.HEALTHY
    ))  # fmt: skip
    view = fleet.finish(fleet.start(spec("2", 10, 100)))
    trials = sum(
        stored.outcome.kind is OutcomeKind.TRIAL_STARTED and stored.outcome.release == "2"
        for stored in fleet.outcomes
    )
    assert (view.status, view.exposed) == (Status.REVERTED, trials)


def test_the_demo_passes_by_itself_with_stragglers_offline():
    """A thousand devices: 8 % offline, some slow, some going on and off."""
    fleet = CheckedFleet(1003)
    fleet.publish("1")
    for device in fleet.by_row:
        if device.row % 12 == 0:
            device.offline = True
        elif device.row % 50 == 1:
            device.fetch_s = 6
        elif device.row % 50 == 2:
            device.offline = lambda now: int(now) % 5 < 2
    first = fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2")
    view = fleet.finish(fleet.start(spec("2")), at_most_s=90)
    assert (first.status, view.status) == (Status.COMPLETED, Status.COMPLETED)
    assert [wave.cut for wave in view.waves] == [10, 97, 1003]
    assert view.evidence.failed == 0
    assert view.evidence.not_begun == 84
