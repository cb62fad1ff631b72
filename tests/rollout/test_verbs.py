"""Verbs of an operator: their effects, and when they are refused."""

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.device import Phase
from edgefleet.protocol.rollout import Status, Verb
from support.toy_rollout import GATE, MODEL, Behaviour, ToyDevice, ToyShell, spec


def shell_on_release_1(devices: int = 200) -> ToyShell:
    shell = ToyShell(devices)
    shell.publish("1")
    shell.run(shell.start(spec("1", 100)))
    shell.publish("2")
    return shell


def refused(shell: ToyShell, rollout: str, verb: Verb, generation: int | None = None) -> str:
    before = shell.view(rollout)
    with pytest.raises(OperatorError) as caught:
        shell.command(rollout, verb, generation)
    assert shell.view(rollout) == before
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
    shell = shell_on_release_1(20)
    rollout = shell.plan(spec("2", 10, 100))
    for step in WAY[status]:
        shell.evaluate() if step is None else shell.command(rollout, step)
    assert shell.view(rollout).status is status
    if verb in ALLOWED[status]:
        before = shell.view(rollout).generation
        shell.command(rollout, verb)
        assert shell.view(rollout).generation == before + 1
    else:
        assert refused(shell, rollout, verb) == "verb_not_now"


def test_a_stale_generation_is_refused():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2"))
    generation = shell.view(rollout).generation
    shell.command(rollout, Verb.PAUSE, generation)
    assert refused(shell, rollout, Verb.RESUME, generation) == "verb_not_now"
    shell.command(rollout, Verb.RESUME, generation + 1)


def test_a_judgement_that_only_waits_for_something_else_leaves_the_generation():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 10, 100))
    generation = shell.view(rollout).generation
    shell.settle(rollout, 2)
    assert shell.view(rollout).wave == 0
    assert shell.view(rollout).generation == generation


def test_an_unknown_rollout_is_not_found():
    shell = ToyShell(1)
    with pytest.raises(OperatorError) as caught:
        shell.command("ro-9", Verb.START)
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.HALT])
def test_a_stopped_rollout_exposes_no_device_and_a_resumed_one_goes_on(verb: Verb):
    shell = shell_on_release_1()
    for device in shell.devices:
        device.slow_s = device.row % 7
    rollout = shell.start(spec("2", 50, 100))
    shell.settle(rollout, 3)
    shell.command(rollout, verb)
    exposed = shell.view(rollout).exposed
    assert 0 < exposed < 100
    view = shell.settle(rollout, 60)
    assert view.exposed == exposed
    assert view.evidence.healthy == exposed  # the devices in trial went on and confirmed
    assert shell.on_release("2") == exposed  # and keep the release
    shell.command(rollout, Verb.RESUME)
    assert shell.run(rollout).status is Status.COMPLETED


def test_paused_it_passes_no_wave():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2", 10, 100))
    while shell.view(rollout).evidence.healthy < 20:
        shell.tick()
    shell.command(rollout, Verb.PAUSE)
    assert shell.settle(rollout, 60).wave == 0
    shell.command(rollout, Verb.RESUME)
    shell.evaluate()
    assert shell.view(rollout).wave == 1


def test_a_paused_rollout_is_reverted_when_the_gate_fails():
    shell = shell_on_release_1()
    paused: list[int] = []

    def after_the_pause(_device: ToyDevice) -> Behaviour:
        return Behaviour.FAILS_TRIAL if paused else Behaviour.GOOD

    shell.publish("2", after_the_pause)
    rollout = shell.start(spec("2", 10, 100))
    shell.tick()
    assert shell.view(rollout).evidence.in_trial == 20
    shell.command(rollout, Verb.PAUSE)
    paused.append(1)
    assert shell.run(rollout).status is Status.REVERTED
    assert shell.on_release("1") == 200


def test_advanced_by_hand_it_opens_the_next_wave_before_the_gate_passes():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2"))
    shell.command(rollout, Verb.ADVANCE)
    view = shell.view(rollout)
    assert view.wave == 1
    assert view.waves[0].judgement is not None
    assert view.waves[0].judgement.reason == "by_hand"
    assert shell.audit[-1] == "operator advance"


def test_an_operator_reverts_a_completed_rollout():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2"))
    shell.run(rollout)
    shell.command(rollout, Verb.REVERT)
    assert shell.view(rollout).why.waits[0].devices == 200
    view = shell.run(rollout)
    assert (view.status, view.reason) == (Status.REVERTED, "by_hand")
    assert shell.on_release("1") == 200


def test_a_revert_by_hand_before_anybody_took_it_ends_at_once():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2"))
    shell.command(rollout, Verb.REVERT)
    shell.evaluate()
    assert shell.view(rollout).status is Status.REVERTED


def test_halted_before_its_start_it_begins_with_the_first_wave_when_resumed():
    shell = shell_on_release_1()
    rollout = shell.plan(spec("2"))
    shell.command(rollout, Verb.HALT)
    shell.command(rollout, Verb.RESUME)
    view = shell.view(rollout)
    assert (view.status, view.wave, view.started_at) == (Status.RUNNING, 0, shell.now)


def test_everything_that_changes_a_rollout_is_audited_with_its_actor():
    shell = shell_on_release_1()
    shell.audit.clear()
    rollout = shell.start(spec("2", 10, 100))
    shell.command(rollout, Verb.PAUSE)
    shell.command(rollout, Verb.RESUME)
    shell.run(rollout)
    assert shell.audit == [
        "operator start",
        "operator pause",
        "operator resume",
        "gate advance",
        "gate finish",
    ]


def test_a_completed_rollout_is_reverted_although_the_next_one_is_planned():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2"))
    shell.run(rollout)
    shell.publish("3")
    planned = shell.plan(spec("3"))
    assert shell.view(planned).previous == "2"
    shell.command(rollout, Verb.REVERT)
    assert refused(shell, planned, Verb.START) == "rollout_overlap"
    shell.run(rollout)
    shell.command(planned, Verb.START)
    assert shell.view(planned).previous == "1"  # determined again at the start


def test_a_completed_rollout_is_not_reverted_while_another_one_runs():
    shell = shell_on_release_1()
    rollout = shell.start(spec("2"))
    shell.run(rollout)
    shell.publish("3")
    shell.start(spec("3"))
    assert refused(shell, rollout, Verb.REVERT) == "rollout_overlap"


def test_a_device_that_does_not_revert_blocks_the_others_for_a_while_only():
    shell = shell_on_release_1(20)
    rollout = shell.start(spec("2", 100))
    shell.settle(rollout, 4)
    stuck = shell.devices[7]
    assert stuck.running == "2"
    stuck.away = lambda _now: True  # simulated below
    shell.command(rollout, Verb.REVERT)

    def tick() -> Status:
        shell.engine.fleet.observe(
            stuck.row, shell.now + 1, model=MODEL, release="2", phase=Phase.IDLE
        )
        shell.tick()
        return shell.view(rollout).status

    patience_s = GATE.patience_s + GATE.confirm_after_s + GATE.silence_s
    assert {tick() for _ in range(int(patience_s) - 1)} == {Status.REVERTING}
    assert [tick(), tick()][-1] is Status.REVERTED
    assert "1 online device still runs the release" in shell.view(rollout).text
    (offer,) = shell.engine.admission.offers(stuck.row, shell.now)
    assert (offer.action, offer.release) == ("revert", "1")
    shell.publish("3")
    shell.plan(spec("3", 100))


def test_the_revert_of_a_completed_rollout_goes_on_until_all_devices_are_back():
    shell = shell_on_release_1(20)
    rollout = shell.start(spec("2", 100))
    assert shell.run(rollout).ended_at is not None
    shell.command(rollout, Verb.REVERT)
    assert (shell.view(rollout).status, shell.view(rollout).ended_at) == (Status.REVERTING, None)
    ended = shell.run(rollout)
    assert (ended.status, ended.ended_at) == (Status.REVERTED, shell.now)
