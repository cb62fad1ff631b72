"""Restart: states and outcomes alone restore the engine."""

import pytest
from msgspec.structs import replace

from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.rollout import RolloutView, Status, Verb
from edgefleet.protocol.wire import decode, encode
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.rollout.limits import REASONS_PER_ROLLOUT
from edgefleet.testing import FakeDevice, Fate
from support.fleets import CheckedFleet, memory_hub
from support.plans import GATE, MODEL, START, outcome, spec


def mixed(device: FakeDevice) -> Fate:
    return Fate.FAILS if device.row % 40 == 3 else Fate.HEALTHY


def story() -> tuple[CheckedFleet, str]:
    fleet = CheckedFleet(200)
    for device in fleet.by_row:
        device.fetch_s = device.row % 5
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 50, 100)))
    fleet.publish("2", fate=mixed)
    return fleet, fleet.start(spec("2"))


def hear_again(fleet: CheckedFleet) -> None:
    """Replay the facts that the next check-in of every device reports."""
    for device in fleet.by_row:
        fleet.engine.fleet.observe(
            device.row, fleet.now, model=MODEL if device.running else None,
            release=device.running, phase=device.phase,
        )  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ticks", [0, 1, 4, 9, 15, 24])
def test_a_new_engine_shows_what_the_old_one_showed(ticks: int, reverse: bool):
    fleet, rollout = story()
    fleet.settle(rollout, ticks)
    hear_again(fleet)
    before = [fleet.view(state.id) for state in fleet.engine.states()]
    fleet.restart(reverse=reverse)
    hear_again(fleet)
    assert [fleet.view(state.id) for state in fleet.engine.states()] == before


def test_a_replay_in_any_order_gives_the_same_reasons_and_accuracy():
    """Each device reports another accuracy; more reasons than are kept; two failures of one."""
    hub = memory_hub(80, "1", "2")
    rollout = hub.start(spec("1", 100))
    hub.command(rollout, Verb.ADVANCE)
    rollout = hub.start(spec("2", 100))
    for row in range(40):
        sent = outcome(rollout, "2", OutcomeKind.CONFIRMED)
        drop = 0.001 * (row % 7)
        hub.record(row, replace(sent, id=f"{row}", accuracy=0.9 - drop, accuracy_before=0.9))
    for row in range(40, 80):
        sent = outcome(rollout, "2", OutcomeKind.TRIAL_FAILED, reason=f"r{row}")
        hub.record(row, replace(sent, id=f"{row}", attempt=2))
    early = outcome(rollout, "2", OutcomeKind.TRIAL_FAILED, reason="r0")
    hub.record(79, replace(early, id="early", attempt=1))
    before = hub.view(rollout).evidence
    assert (before.quality[0].metric, before.quality[0].pairs) == ("accuracy", 40)
    assert before.reasons["other"] == 40 - REASONS_PER_ROLLOUT
    assert "r79" not in before.reasons
    hub.restart(reverse=True)
    after = hub.view(rollout).evidence
    assert (after.reasons, after.quality) == (before.reasons, before.quality)


def ending(view: RolloutView) -> tuple[object, ...]:
    waves = [(wave.cut, wave.threshold, wave.exposed) for wave in view.waves]
    return view.status, view.reason, waves, view.evidence


@pytest.mark.parametrize("behaviour", [mixed, lambda _device: Fate.FAILS])
def test_a_hub_killed_at_every_tick_ends_the_same(behaviour):
    calm, calm_rollout = story()
    killed, killed_rollout = story()
    for fleet in (calm, killed):
        fleet.publish("2", fate=behaviour)
    while killed_rollout in killed.engine.open_rollouts():
        killed.tick(1)
        killed.restart()
    assert ending(killed.view(killed_rollout)) == ending(calm.finish(calm_rollout))


def test_a_restart_makes_no_device_silent_or_offline():
    fleet = CheckedFleet(100)
    fleet.publish("1")
    fleet.finish(fleet.start(spec("1", 100)))
    fleet.publish("2")
    rollout = fleet.start(spec("2", 20, 100))
    fleet.tick(1)
    assert fleet.view(rollout).evidence.in_trial == 20
    fleet.jump(3600)  # the hub was down for an hour
    fleet.restart()
    fleet.evaluate()
    view = fleet.view(rollout)
    assert (view.evidence.silent, view.evidence.offline, view.evidence.in_trial) == (0, 0, 20)
    assert fleet.finish(rollout).status is Status.COMPLETED


def test_a_state_survives_json():
    fleet, rollout = story()
    fleet.finish(rollout)
    for state in fleet.engine.states():
        assert decode(encode(state), RolloutState) == state


def test_an_outcome_of_an_unknown_rollout_or_of_another_release_counts_nothing():
    fleet, rollout = story()
    before = fleet.view(rollout)
    unknown = outcome("ro-99", "2", OutcomeKind.CONFIRMED)
    other = outcome(rollout, "1", OutcomeKind.CONFIRMED)
    assert not fleet.engine.intake.record(0, unknown)
    assert not fleet.engine.intake.record(0, other)
    assert fleet.view(rollout) == before


def test_a_change_that_does_not_follow_the_current_state_is_not_committed():
    fleet, rollout = story()
    change = fleet.engine.evaluate(rollout, fleet.now)
    assert change is not None
    fleet.engine.commit(change)
    with pytest.raises(AssertionError, match="revision"):
        fleet.engine.commit(change)


def test_time_starts_where_the_shell_says():
    assert CheckedFleet(1).engine.fleet.listening_since == START


def test_a_soak_does_not_wait_for_a_clock_that_was_set_back_to_catch_up():
    fleet = CheckedFleet(30)
    fleet.publish("1")
    rollout = fleet.start(spec("1", 100, gate=replace(GATE, soak_s=5.0)))
    while fleet.view(rollout).why.waits[0].code != "soak":
        fleet.tick(1)
    fleet.jump(-3_600.0)
    fleet.restart()
    assert fleet.finish(rollout, at_most_s=60).status is Status.COMPLETED
