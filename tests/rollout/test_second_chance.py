"""A release planned again, reverts by a person, and the failures that quarantine a device."""

import pytest
from msgspec.structs import replace

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import RolloutSpec, Status, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.testing import Behaviour, Fate, MemoryHub
from support.fleets import CheckedFleet, memory_hub, new_device
from support.plans import outcome, spec

FAILED, REVERTED = OutcomeKind.TRIAL_FAILED, OutcomeKind.REVERTED


def again(release: str, *percents: float, reason: str = "the lens is clean") -> RolloutSpec:
    return replace(spec(release, *percents), again=reason)


def refused(hub: MemoryHub, wanted: RolloutSpec) -> tuple[str, str | None]:
    with pytest.raises(OperatorError) as caught:
        hub.plan(wanted)
    return caught.value.code, caught.value.field


def failing(devices: int, *rows: int, releases: str = "23") -> CheckedFleet:
    """A fleet on release 1 with four releases more; ``releases`` fail on the devices ``rows``."""
    fleet = CheckedFleet(devices)
    for release in "12345":
        fleet.publish(release)
    for row in rows:
        fleet.by_row[row].fates = dict.fromkeys(releases, Fate.FAILS)
    fleet.finish(fleet.start(spec("1", 100)))
    return fleet


# A second chance.


def test_a_release_that_the_gate_took_back_is_planned_again_only_with_a_reason():
    fleet = failing(10, *range(6))
    bad = fleet.finish(fleet.start(spec("2", 100)))
    assert (bad.status, fleet.on_release()) == (Status.REVERTED, {"1": 10})
    assert refused(fleet, spec("2", 100)) == ("release_failed_before", "release")
    assert refused(fleet, again("2", 100, reason=" ")) == ("bad_request", "again")
    for device in fleet.by_row:
        device.fates = {}
    rollout = fleet.start(again("2", 100))
    waits = {wait.code: wait.text for wait in fleet.why(rollout).waits}
    assert waits[WaitCode.AGAIN] == 'Release 2 gets a second chance: "the lens is clean".'
    assert fleet.finish(rollout).status is Status.COMPLETED
    assert fleet.on_release() == {"2": 10}
    assert waits[WaitCode.AGAIN] in fleet.engine.why_release("digits", "2", fleet.now).line


@pytest.mark.parametrize("with_restart", [False, True])
def test_what_fails_at_the_second_chance_is_not_offered_by_an_older_rollout(with_restart: bool):
    """Only older reports are forgiven: the device must go back from the second chance, too."""
    fleet = failing(10, *range(6))
    fleet.finish(fleet.start(spec("2", 100)))
    rollout = fleet.start(again("2", 100))
    assert fleet.finish(rollout).status is Status.REVERTED
    if with_restart:
        fleet.restart()
    fleet.settle(rollout, 20)
    assert fleet.on_release() == {"1": 10}
    assert refused(fleet, spec("2", 100)) == ("release_failed_before", "release")
    assert fleet.plan(again("2", 100, reason="a third one"))


def test_a_failure_at_the_second_chance_counts_for_the_older_rollout():
    hub = memory_hub(2, "1")
    first = hub.start(spec("1", 100))
    hub.record(1, replace(outcome(first, "1", FAILED), id=first))
    hub.command(first, Verb.HALT)
    second = hub.start(again("1", 100))
    hub.record(0, replace(outcome(second, "1", FAILED), id=second))
    hub.command(second, Verb.HALT)
    hub.command(first, Verb.RESUME)
    assert hub.engine.desired(0, "digits") is None
    assert hub.engine.desired(1, "digits") is None


def test_a_device_that_failed_a_kept_release_gets_it_only_by_a_second_chance():
    fleet = CheckedFleet(40)
    odd = new_device("odd", lens="dirty")
    odd.fates = {"2": Fate.FAILS}
    fleet.enrol(odd)
    for release in "12":
        fleet.publish(release)
        assert fleet.finish(fleet.start(spec(release, 100))).status is Status.COMPLETED
    odd.fates = {}
    alone = replace(spec("2", 100), selector="lens=dirty")
    assert refused(fleet, alone) == ("release_failed_before", "release")
    fleet.finish(fleet.start(replace(alone, again="the lens is clean")))
    assert (odd.running, fleet.on_release()) == ("2", {"2": 41})


def test_a_release_that_failed_on_every_selected_device_is_refused():
    hub = memory_hub(2, "1", "2")
    hub.start(spec("1", 100))
    hub.command("ro-1", Verb.HALT)
    for row in (0, 1):
        hub.record(row, replace(outcome("ro-1", "1", FAILED), id=f"{row}"))
    assert refused(hub, spec("1", 100)) == ("release_failed_before", "release")
    assert hub.plan(again("1", 100))


def test_a_second_chance_needs_a_first_one():
    fleet = failing(10)
    assert refused(fleet, again("2", 100)) == ("again_not_needed", "again")


def test_devices_that_refused_a_release_prove_it_again_at_the_second_chance():
    fleet = CheckedFleet(10)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2", Behaviour(refuses=1))
    assert fleet.finish(fleet.start(spec("2", 100))).status is Status.REFUSED
    assert refused(fleet, spec("2", 100)) == ("release_failed_before", "release")
    for device in fleet.by_row:
        device.fates = {"2": Fate.HEALTHY}
    assert fleet.finish(fleet.start(again("2", 100))).status is Status.COMPLETED


# A revert by a person.


def test_a_revert_by_a_person_bans_no_release_and_no_device():
    fleet = failing(10)
    for _ in range(3):
        rollout = fleet.start(spec("2", 100))
        fleet.finish(rollout)
        fleet.command(rollout, Verb.REVERT)
        fleet.finish(rollout)
        assert fleet.on_release() == {"1": 10}
    assert fleet.engine.quarantined_rows("digits").tolist() == []
    assert fleet.finish(fleet.start(spec("2", 100))).status is Status.COMPLETED
    assert fleet.on_release() == {"2": 10}


def test_a_revert_by_a_person_keeps_the_failures_of_devices():
    fleet = failing(40, 7)
    rollout = fleet.start(spec("2", 100))
    fleet.finish(rollout)
    fleet.command(rollout, Verb.REVERT)
    fleet.finish(rollout)
    fleet.by_row[7].fates = {}
    fleet.finish(fleet.start(spec("2", 100)))
    assert fleet.on_release() == {"1": 1, "2": 39}


# Quarantine.


def test_a_device_on_which_two_kept_releases_failed_is_quarantined_until_it_is_cleared():
    fleet = failing(40, 7)
    for release in "23":
        assert fleet.finish(fleet.start(spec(release, 100))).status is Status.COMPLETED
    rollout = fleet.start(spec("4", 100))
    fleet.tick(1)
    assert fleet.engine.quarantined_models(7) == ("digits",)
    assert fleet.engine.quarantined_rows("digits").tolist() == [7]
    start = outcome(rollout, "4", OutcomeKind.TRIAL_STARTED)
    assert fleet.engine.admission.offers(7, fleet.now) == ()
    assert not fleet.engine.admission.admit(7, start, fleet.now)
    assert fleet.engine.why_device(7, fleet.now).waits[-1].code is WaitCode.QUARANTINED
    waits = {wait.code: wait for wait in fleet.why(rollout).waits}
    assert waits[WaitCode.QUARANTINED].devices == 1
    fleet.unquarantine("d00007")
    assert fleet.engine.admission.admit(7, start, fleet.now)


def test_releases_that_the_gate_took_back_quarantine_no_device():
    fleet = failing(20, *range(12))
    for release in "23":
        assert fleet.finish(fleet.start(spec(release, 100))).status is Status.REVERTED
    assert fleet.engine.quarantined_rows("digits").tolist() == []
    fleet.restart()
    assert fleet.engine.quarantined_rows("digits").tolist() == []


def test_two_failures_of_one_release_are_one():
    hub = memory_hub(2, "1", "2")
    for wanted in (spec("1", 100), again("1", 100)):
        rollout = hub.start(wanted)
        hub.record(0, replace(outcome(rollout, "1", FAILED), id=rollout))
        hub.command(rollout, Verb.HALT)
    assert hub.engine.rollbacks("digits", 0) == 1
    assert hub.engine.quarantined_models(0) == ()
    rollout = hub.start(spec("2", 100))
    hub.record(0, replace(outcome(rollout, "2", FAILED), id=rollout))
    assert hub.engine.quarantined_models(0) == ("digits",)


@pytest.mark.parametrize("last_first", [False, True])
def test_a_release_that_is_taken_back_later_ends_the_quarantine(last_first: bool):
    hub = memory_hub(1, "1", "2", "3")
    rollouts = []
    for release in "12":
        rollouts.append(hub.start(spec(release, 100)))
        hub.command(rollouts[-1], Verb.HALT)
    reports = [
        replace(outcome(rollout, release, FAILED), id=rollout)
        for rollout, release in zip(rollouts, "12", strict=True)
    ]
    for report in reversed(reports) if last_first else reports:
        hub.record(0, report)
    assert hub.engine.quarantined_rows("digits").tolist() == [0]
    hub.command(rollouts[1], Verb.REVERT)
    assert hub.engine.quarantined_rows("digits").tolist() == []
    hub.record(0, replace(outcome(rollouts[1], "2", REVERTED), id="back"))
    assert hub.engine.rollbacks("digits", 0) == 1
