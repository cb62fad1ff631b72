"""Restart: states and outcomes alone restore the engine."""

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import RolloutView, Status
from edgefleet.protocol.wire import decode, encode
from edgefleet.rollout.lifecycle.state import RolloutState
from support.toy_rollout import GATE, MODEL, START, Behaviour, ToyDevice, ToyShell, outcome, spec


def mixed(device: ToyDevice) -> Behaviour:
    return Behaviour.FAILS_TRIAL if device.row % 40 == 3 else Behaviour.GOOD


def story() -> tuple[ToyShell, str]:
    shell = ToyShell(200)
    for device in shell.devices:
        device.slow_s = device.row % 5
    shell.publish("1")
    shell.run(shell.start(spec("1", 50, 100)))
    shell.publish("2", mixed)
    return shell, shell.start(spec("2"))


def hear_again(shell: ToyShell) -> None:
    """Replay the facts that the next check-in of every device reports."""
    for device in shell.devices:
        shell.engine.fleet.observe(
            device.row, shell.now, model=MODEL if device.running else None,
            release=device.running, phase=device.phase,
        )  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ticks", [0, 1, 4, 9, 15, 24])
def test_a_new_engine_shows_what_the_old_one_showed(ticks: int, reverse: bool):
    shell, rollout = story()
    shell.settle(rollout, ticks)
    hear_again(shell)
    before = [shell.view(state.id) for state in shell.engine.states()]
    shell.restart(reverse=reverse)
    hear_again(shell)
    assert [shell.view(state.id) for state in shell.engine.states()] == before


def ending(view: RolloutView) -> tuple[object, ...]:
    waves = [(wave.cut, wave.threshold, wave.exposed) for wave in view.waves]
    return view.status, view.reason, waves, view.evidence


@pytest.mark.parametrize("behaviour", [mixed, lambda _device: Behaviour.FAILS_TRIAL])
def test_a_hub_killed_at_every_tick_ends_the_same(behaviour):
    calm, calm_rollout = story()
    killed, killed_rollout = story()
    calm.behaviour["2"] = killed.behaviour["2"] = behaviour
    while killed_rollout in killed.engine.open_rollouts():
        killed.tick()
        killed.restart()
    assert ending(killed.view(killed_rollout)) == ending(calm.run(calm_rollout))


def test_a_restart_makes_no_device_silent_or_offline():
    shell = ToyShell(100)
    shell.publish("1")
    shell.run(shell.start(spec("1", 100)))
    shell.publish("2")
    rollout = shell.start(spec("2", 20, 100))
    shell.tick()
    assert shell.view(rollout).evidence.in_trial == 20
    shell.now += 3600  # the hub was down for an hour
    shell.restart()
    shell.evaluate()
    view = shell.view(rollout)
    assert (view.evidence.silent, view.evidence.offline, view.evidence.in_trial) == (0, 0, 20)
    assert shell.run(rollout).status is Status.COMPLETED


def test_a_state_survives_json():
    shell, rollout = story()
    shell.run(rollout)
    for state in shell.engine.states():
        assert decode(encode(state), RolloutState) == state


def test_an_outcome_of_an_unknown_rollout_or_of_another_release_counts_nothing():
    shell, rollout = story()
    before = shell.view(rollout)
    unknown = outcome("ro-99", "2", OutcomeKind.CONFIRMED)
    other = outcome(rollout, "1", OutcomeKind.CONFIRMED)
    assert not shell.engine.intake.record(0, unknown)
    assert not shell.engine.intake.record(0, other)
    assert shell.view(rollout) == before


def test_a_change_that_does_not_follow_the_current_state_is_not_committed():
    shell, rollout = story()
    change = shell.engine.evaluate(rollout, shell.now)
    assert change is not None
    shell.engine.commit(change)
    with pytest.raises(AssertionError, match="revision"):
        shell.engine.commit(change)


def test_time_starts_where_the_shell_says():
    assert ToyShell(1).engine.fleet.listening_since == START


def test_a_soak_does_not_wait_for_a_clock_that_was_set_back_to_catch_up():
    shell = ToyShell(30)
    shell.publish("1")
    rollout = shell.start(spec("1", 100, gate=replace(GATE, soak_s=5.0)))
    while shell.view(rollout).why.waits[0].code != "soak":
        shell.tick()
    shell.now -= 3_600.0
    shell.restart()
    assert shell.run(rollout, at_most_s=60).status is Status.COMPLETED
