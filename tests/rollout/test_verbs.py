"""Verbs of an operator: their effects, and when they are refused."""

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Phase
from edgefleet.protocol.rollout import Judgement, Status, Verb
from edgefleet.testing import FakeDevice, Fate
from support.fleets import CheckedFleet
from support.plans import GATE, MODEL, spec


def fleet_on_release_1(devices: int = 200) -> CheckedFleet:
    fleet = CheckedFleet(devices)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2")
    return fleet


def refused(fleet: CheckedFleet, rollout: str, verb: Verb, generation: int | None = None) -> str:
    before = fleet.view(rollout)
    with pytest.raises(OperatorError) as caught:
        fleet.command(rollout, verb, generation=generation)
    assert fleet.view(rollout) == before
    return caught.value.code


ALLOWED = {
    Status.PLANNED: {Verb.START, Verb.HALT},
    Status.RUNNING: {Verb.PAUSE, Verb.ADVANCE, Verb.HALT, Verb.REVERT},
    Status.PAUSED: {Verb.RESUME, Verb.HALT, Verb.REVERT},
    Status.HALTED: {Verb.RESUME, Verb.REVERT},
    Status.REVERTING: set[Verb](),
    Status.COMPLETED: {Verb.REVERT},
    Status.REVERTED: set[Verb](),
}
WAY = {
    Status.PLANNED: [],
    Status.RUNNING: [Verb.START],
    Status.PAUSED: [Verb.START, Verb.PAUSE],
    Status.HALTED: [Verb.START, Verb.HALT],
    Status.REVERTING: [Verb.START, Verb.REVERT],
    Status.COMPLETED: [Verb.START, Verb.ADVANCE, Verb.ADVANCE],
    Status.REVERTED: [Verb.START, Verb.REVERT, None],
}


@pytest.mark.parametrize("status", ALLOWED)
@pytest.mark.parametrize("verb", Verb)
def test_each_verb_works_where_the_table_says_and_nowhere_else(status: Status, verb: Verb):
    fleet = fleet_on_release_1(20)
    rollout = fleet.plan(spec("2", 10, 100))
    for step in WAY[status]:
        fleet.evaluate() if step is None else fleet.command(rollout, step)
    assert fleet.view(rollout).status is status
    if verb in ALLOWED[status]:
        before = fleet.view(rollout).generation
        fleet.command(rollout, verb)
        assert fleet.view(rollout).generation == before + 1
    else:
        assert refused(fleet, rollout, verb) == "verb_not_now"


def test_a_stale_generation_is_refused():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2"))
    generation = fleet.view(rollout).generation
    fleet.command(rollout, Verb.PAUSE, generation=generation)
    assert refused(fleet, rollout, Verb.RESUME, generation) == "verb_not_now"
    fleet.command(rollout, Verb.RESUME, generation=generation + 1)


def test_a_judgement_that_only_waits_for_something_else_leaves_the_generation():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 10, 100))
    generation = fleet.view(rollout).generation
    fleet.settle(rollout, 2)
    assert fleet.view(rollout).wave == 0
    assert fleet.view(rollout).generation == generation


def test_an_unknown_rollout_is_not_found():
    fleet = CheckedFleet(1)
    with pytest.raises(OperatorError) as caught:
        fleet.command("ro-9", Verb.START)
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.HALT])
def test_a_stopped_rollout_exposes_no_device_and_a_resumed_one_goes_on(verb: Verb):
    fleet = fleet_on_release_1()
    for device in fleet.by_row:
        device.fetch_s = device.row % 7
    rollout = fleet.start(spec("2", 50, 100))
    fleet.settle(rollout, 3)
    fleet.command(rollout, verb)
    exposed = fleet.view(rollout).exposed
    assert 0 < exposed < 100
    view = fleet.settle(rollout, 60)
    assert view.exposed == exposed
    assert view.evidence.healthy == exposed  # the devices in trial went on and confirmed
    assert fleet.on_release()["2"] == exposed  # and keep the release
    fleet.command(rollout, Verb.RESUME)
    assert fleet.finish(rollout).status is Status.COMPLETED


def test_paused_it_passes_no_wave():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2", 10, 100))
    while fleet.view(rollout).evidence.healthy < 20:
        fleet.tick(1)
    fleet.command(rollout, Verb.PAUSE)
    assert fleet.settle(rollout, 60).wave == 0
    fleet.command(rollout, Verb.RESUME)
    fleet.evaluate()
    assert fleet.view(rollout).wave == 1


def test_a_paused_rollout_is_reverted_when_the_gate_fails():
    fleet = fleet_on_release_1()
    paused: list[int] = []

    def after_the_pause(_device: FakeDevice) -> Fate:
        return Fate.FAILS if paused else Fate.HEALTHY

    fleet.publish("2", fate=after_the_pause)
    rollout = fleet.start(spec("2", 10, 100))
    fleet.tick(1)
    assert fleet.view(rollout).evidence.in_trial == 20
    fleet.command(rollout, Verb.PAUSE)
    paused.append(1)
    assert fleet.finish(rollout).status is Status.REVERTED
    assert fleet.on_release()["1"] == 200


def test_advanced_by_hand_it_opens_the_next_wave_before_the_gate_passes():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2"))
    fleet.command(rollout, Verb.ADVANCE)
    view = fleet.view(rollout)
    assert view.wave == 1
    assert view.waves[0].judgement is not None
    assert view.waves[0].judgement.reason == "by_hand"
    assert (fleet.audit[-1].actor, fleet.audit[-1].action) == ("operator", "advance")


def test_an_operator_reverts_a_completed_rollout():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2"))
    fleet.finish(rollout)
    fleet.command(rollout, Verb.REVERT)
    assert fleet.view(rollout).why.waits[0].devices == 200
    view = fleet.finish(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "by_hand")
    assert fleet.on_release()["1"] == 200


def test_a_revert_by_hand_before_anybody_took_it_ends_at_once():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2"))
    fleet.command(rollout, Verb.REVERT)
    fleet.evaluate()
    assert fleet.view(rollout).status is Status.REVERTED


def test_halted_before_its_start_it_begins_with_the_first_wave_when_resumed():
    fleet = fleet_on_release_1()
    rollout = fleet.plan(spec("2"))
    fleet.command(rollout, Verb.HALT)
    fleet.command(rollout, Verb.RESUME)
    view = fleet.view(rollout)
    assert (view.status, view.wave, view.started_at) == (Status.RUNNING, 0, fleet.now)


def test_everything_that_changes_a_rollout_is_audited_with_its_actor():
    fleet = fleet_on_release_1()
    fleet.audit.clear()
    rollout = fleet.start(spec("2", 10, 100))
    fleet.command(rollout, Verb.PAUSE)
    fleet.command(rollout, Verb.RESUME)
    fleet.finish(rollout)
    assert [f"{line.actor} {line.action}" for line in fleet.audit] == [
        "operator start",
        "operator pause",
        "operator resume",
        "gate advance",
        "gate finish",
    ]


def test_a_completed_rollout_is_reverted_although_the_next_one_is_planned():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2"))
    fleet.finish(rollout)
    fleet.publish("3")
    planned = fleet.plan(spec("3"))
    assert fleet.view(planned).previous == "2"
    fleet.command(rollout, Verb.REVERT)
    assert refused(fleet, planned, Verb.START) == "rollout_overlap"
    fleet.finish(rollout)
    fleet.command(planned, Verb.START)
    assert fleet.view(planned).previous == "1"  # determined again at the start


def test_a_completed_rollout_is_not_reverted_while_another_one_runs():
    fleet = fleet_on_release_1()
    rollout = fleet.start(spec("2"))
    fleet.finish(rollout)
    fleet.publish("3")
    fleet.start(spec("3"))
    assert refused(fleet, rollout, Verb.REVERT) == "rollout_overlap"


def test_a_device_that_does_not_revert_blocks_the_others_for_a_while_only():
    fleet = fleet_on_release_1(20)
    rollout = fleet.start(spec("2", 100))
    fleet.settle(rollout, 4)
    stuck = fleet.by_row[7]
    assert stuck.running == "2"
    stuck.offline = True  # simulated below
    fleet.command(rollout, Verb.REVERT)

    def tick() -> Status:
        fleet.engine.fleet.observe(
            stuck.row, fleet.now + 1, model=MODEL, release="2", phase=Phase.IDLE
        )
        fleet.tick(1)
        return fleet.view(rollout).status

    patience_s = GATE.patience_s + GATE.confirm_after_s + GATE.silence_s
    assert {tick() for _ in range(int(patience_s) - 1)} == {Status.REVERTING}
    assert [tick(), tick()][-1] is Status.REVERTED
    assert "1 online device still runs the release" in fleet.view(rollout).text
    (offer,) = fleet.engine.admission.offers(stuck.row, fleet.now)
    assert (offer.action, offer.release) == ("revert", "1")
    fleet.publish("3")
    fleet.plan(spec("3", 100))


def test_the_revert_of_a_completed_rollout_goes_on_until_all_devices_are_back():
    fleet = fleet_on_release_1(20)
    rollout = fleet.start(spec("2", 100))
    assert fleet.finish(rollout).ended_at is not None
    fleet.command(rollout, Verb.REVERT)
    assert (fleet.view(rollout).status, fleet.view(rollout).ended_at) == (Status.REVERTING, None)
    ended = fleet.finish(rollout)
    assert (ended.status, ended.ended_at) == (Status.REVERTED, fleet.now)


@pytest.mark.parametrize("verb", [Verb.HALT, Verb.REVERT])
def test_a_wave_that_an_operator_ends_keeps_the_judgement_that_was_shown(verb: Verb):
    """It is newer than the one that the last evaluation stored."""
    fleet = CheckedFleet(3, tick_s=5.0)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2", fate=lambda _: Fate.FAILS)
    rollout = fleet.start(spec("2", 100))

    def shown_and_stored() -> tuple[Judgement | None, Judgement | None]:
        (stored,) = (state for state in fleet.engine.states() if state.id == rollout)
        return fleet.view(rollout).waves[0].judgement, stored.waves[0].judgement

    for _ in range(100):
        fleet.tick(0.5)
        shown, stored = shown_and_stored()
        if (
            shown is not None
            and shown.evidence.failed
            and (not stored or stored.text != shown.text)
        ):
            break
    else:
        pytest.fail("the judgements are never apart")
    fleet.command(rollout, verb)
    assert shown_and_stored() == (shown, shown)
    fleet.tick(60)
    kept, _ = shown_and_stored()
    assert kept == shown
