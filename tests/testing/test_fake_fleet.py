"""The public fixtures tell what the real engine does."""

import pytest

from edgefleet.protocol.rollout import ExposureSpec, RolloutSpec, Status, Verb
from edgefleet.testing import Behaviour, FakeDevice, FakeFleet, Fate, play

PLAN = RolloutSpec(model="digits", release="2")


def test_a_good_release_reaches_every_device() -> None:
    played = play(PLAN, 300)
    assert played.status is Status.COMPLETED
    assert played.on_release == {"2": 300}
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
    one, two = (play(PLAN, 500, behaviour=Behaviour(fails=0.03)) for _ in range(2))
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
    fleet.tick(4 * 3600)
    assert fleet.view(rollout).evidence.failed == 0
    fleet.command(rollout, Verb.REVERT)
    fleet.tick(60)
    assert fleet.on_release() == {"1": 100}
