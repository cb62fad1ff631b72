"""The public fixtures tell what the real engine does."""

import pytest

from edgefleet.protocol.device import ModelReport, OutcomeKind
from edgefleet.protocol.rollout import ExposureSpec, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.protocol.why import WaitCode
from edgefleet.testing import Behaviour, FakeDevice, FakeFleet, Fate, fake_manifest, play

PLAN = RolloutSpec(model="digits", release="2")
PLAN_TO_ALL = RolloutSpec(model="digits", release="2", waves=(WaveSpec(percent=100),))


def test_a_good_release_reaches_every_device_but_those_held_back_for_the_bake() -> None:
    played = play(PLAN, 300)
    assert played.status is Status.COMPLETED
    assert played.on_release == {"2": 297, "0": 3}
    assert [said.reason for said in played.judgements if said] == ["passed"] * 3


def test_a_release_that_fails_is_taken_back_from_all() -> None:
    played = play(PLAN, 1000, behaviour=Behaviour(fails=0.5))
    assert (played.status, played.reason) == (Status.REVERTED, "error_rate")
    assert played.on_release == {"0": 1000}
    assert 0 < played.exposed <= 100


def test_a_release_that_devices_refuse_exposes_nobody() -> None:
    played = play(PLAN, 200, behaviour=Behaviour(refuses=1))
    assert (played.status, played.exposed) == (Status.REFUSED, 0)


def test_silence_after_activating_is_failure() -> None:
    played = play(PLAN, 1000, behaviour=Behaviour(silent=1))
    assert played.status is Status.REVERTED
    assert played.view.evidence.silent == played.view.evidence.failed > 0


def test_the_same_play_takes_the_same_course() -> None:
    one, two = (play(PLAN, 200, behaviour=Behaviour(fails=0.03)) for _ in range(2))
    assert (one.view, one.audit) == (two.view, two.audit)


def test_devices_may_have_labels_and_fates_of_their_own() -> None:
    devices = [
        FakeDevice(f"d{number}", labels={"site": "lyon" if number % 2 else "oslo"})
        for number in range(100)
    ]
    for device in devices:
        if device.labels["site"] == "lyon":
            device.fates = {"2": Fate.FAILS}
    oslo = RolloutSpec(model="digits", release="2", selector="site=oslo")
    assert play(oslo, devices).on_release == {"0": 50, "2": 50}


def test_no_more_devices_are_on_trial_than_the_plan_allows() -> None:
    fleet = FakeFleet(200)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2")
    few = ExposureSpec(first=3, growth=0.01)
    rollout = fleet.start(RolloutSpec(model="digits", release="2", exposure=few))
    most = 0
    for _ in range(300):
        fleet.tick(1)
        most = max(most, sum(device.trial is not None for device in fleet.devices.values()))
        assert most <= 3
    assert most == 3
    assert fleet.view(rollout).exposed > 3


def test_a_restart_in_the_middle_changes_nothing() -> None:
    fleet = FakeFleet(300)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2")
    rollout = fleet.start(PLAN)
    fleet.tick(100)
    before = fleet.view(rollout)
    fleet.restart()
    after = fleet.view(rollout)
    assert after.evidence.healthy == before.evidence.healthy > 0
    assert fleet.run(rollout, at_most_s=3600).status is Status.COMPLETED


def test_a_rollout_that_does_not_end_says_what_it_waits_for() -> None:
    with pytest.raises(AssertionError, match="finished"):
        play(PLAN, 100, behaviour=Behaviour(defers=1), at_most_s=600)


def test_offline_devices_are_no_failures() -> None:
    fleet = FakeFleet(100)
    fleet.publish("1")
    fleet.install("1")
    fleet.publish("2")
    for device in list(fleet.devices.values())[:30]:
        device.offline = True
    rollout = fleet.start(PLAN)
    fleet.tick(3600)
    assert fleet.view(rollout).evidence.failed == 0
    fleet.command(rollout, Verb.REVERT)
    fleet.tick(60)
    assert fleet.on_release() == {"1": 100}


def on_release_1(devices: int) -> FakeFleet:
    fleet = FakeFleet(devices)
    fleet.publish("1")
    fleet.install("1")
    return fleet


def test_a_function_decides_the_fate_of_each_device() -> None:
    fleet = on_release_1(40)
    fleet.publish("2", fate=lambda device: Fate.FAILS if device.row < 20 else Fate.HEALTHY)
    rollout = fleet.start(PLAN_TO_ALL)
    assert fleet.run(rollout, at_most_s=86_400).status is Status.REVERTED
    ends = {OutcomeKind.TRIAL_FAILED: set[int](), OutcomeKind.CONFIRMED: set[int]()}
    for stored in fleet.outcomes:
        ends.get(stored.outcome.kind, set[int]()).add(stored.row)
    assert ends[OutcomeKind.TRIAL_FAILED] <= set(range(20))
    assert ends[OutcomeKind.CONFIRMED] <= set(range(20, 40))
    assert all(ends.values())


def test_a_release_that_is_published_again_has_the_new_behaviour() -> None:
    fleet = on_release_1(40)
    fleet.publish("2", fate=lambda _device: Fate.FAILS)
    rollout = fleet.start(PLAN_TO_ALL)
    fleet.publish("2")
    assert fleet.run(rollout, at_most_s=86_400).status is Status.COMPLETED
    assert fleet.on_release() == {"2": 40}


def test_a_device_may_be_offline_by_a_function_of_the_time() -> None:
    fleet = on_release_1(1)
    device, back = fleet.by_row[0], fleet.now + 300
    device.offline = lambda now: now < back
    fleet.publish("2")
    fleet.start(PLAN_TO_ALL)
    fleet.tick(299)
    assert device.running == "1"
    fleet.tick(60)
    assert device.running == "2"


def test_a_device_whose_answers_are_lost_reports_but_never_starts() -> None:
    fleet = on_release_1(1)
    fleet.by_row[0].answers_lost = True
    fleet.publish("2")
    fleet.start(PLAN_TO_ALL)
    fleet.tick(60)
    assert (fleet.by_row[0].running, fleet.by_row[0].staging) == ("1", None)
    assert fleet.now - (fleet.engine.fleet.last_seen(0) or 0) <= 10
    fleet.by_row[0].answers_lost = False
    fleet.tick(60)
    assert fleet.by_row[0].running == "2"


def test_devices_without_requests_leave_quality_unjudged() -> None:
    devices = [FakeDevice(f"d{number}", requests_s=0.0) for number in range(30)]
    played = play(PLAN_TO_ALL, devices, behaviour=Behaviour(confidence=0.1, accuracy=None))
    assert (played.status, played.view.evidence.quality) == (Status.COMPLETED, ())
    assert play(PLAN_TO_ALL, 30, behaviour=Behaviour(confidence=0.1)).view.evidence.quality


def test_a_deferred_release_is_tried_again_at_the_next_check_in() -> None:
    fleet = on_release_1(1)
    fleet.by_row[0].fetch_s = 0.0
    fleet.publish("2", Behaviour(defers=1))
    fleet.start(PLAN_TO_ALL)
    before = fleet.by_row[0].seq
    fleet.tick(600)
    assert fleet.by_row[0].seq - before <= 62  # one check-in in ten seconds
    fleet.publish("2")
    fleet.tick(60)
    assert fleet.by_row[0].running == "2"


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_nothing_happens_while_the_clock_jumps(seconds: float) -> None:
    fleet = on_release_1(20)
    fleet.publish("2")
    rollout = fleet.start(PLAN_TO_ALL)
    sent, then = [device.seq for device in fleet.by_row], fleet.now
    fleet.jump(seconds)
    fleet.restart()
    assert fleet.now == then + seconds
    assert [device.seq for device in fleet.by_row] == sent
    assert fleet.run(rollout, at_most_s=3600).status is Status.COMPLETED


def test_a_dead_device_that_was_repaired_checks_in_again() -> None:
    fleet = on_release_1(1)
    fleet.publish("2", Behaviour(silent=1))
    fleet.start(PLAN_TO_ALL)
    fleet.tick(60)
    device = fleet.by_row[0]
    assert (device.running, device.dead) == ("2", True)
    device.dead = False
    fleet.publish("2")
    fleet.tick(120)
    assert fleet.view("ro-2").evidence.healthy == 1


def test_a_release_waits_where_it_does_not_fit_beside_the_models_that_run() -> None:
    beside = (ModelReport(model="detector", release="1"),)
    fleet = FakeFleet(
        FakeDevice(f"d{size}", protocol=3, models_memory_mib=size, beside=beside)
        for size in (0, 250, 300)
    )
    fleet.add_release(fake_manifest("detector", "1", ("generic_x86",), now=fleet.now))
    fleet.tick(20)
    fleet.publish("2", memory_limit_mib=200)
    fleet.start(PLAN_TO_ALL)
    fleet.tick(300)
    assert [device.running for device in fleet.by_row] == ["2", None, "2"]
    (wait,) = [one for one in fleet.why_device("d250").waits if one.code is WaitCode.MEMORY]
    assert "may use 200 MiB; this device has 250 MiB for its models" in wait.text
    fleet.restart()
    fleet.tick(60)
    assert fleet.by_row[1].running is None, "the hub still knows the memory after a restart"
