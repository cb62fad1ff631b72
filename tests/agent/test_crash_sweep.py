"""Power cuts at every storage operation of an update, and of the recovery after the first cut.

The sweep must find each planted bug below.
"""

import msgspec
import pytest

from edgefleet.agent import limits
from edgefleet.agent.effect import Effect, MovePointer, Prove
from edgefleet.agent.event import CheckInAnswered, Event
from edgefleet.agent.state import AgentState
from edgefleet.agent.step import step
from edgefleet.agent.stored import to_store
from edgefleet.agent.table import Stage
from support.agent_world import model_bytes
from support.device_world import World, fork
from support.memory_storage import When
from support.own_files import lose, replace
from support.power_cuts import Make, live, on_release_1, settled

ENDS = {  # offer after release 1: (release that serves in the end, outcomes at the hub)
    "2": ("2", ["confirmed"]),
    "sick": ("1", ["trial_failed"]),
    "liar": ("1", ["refused"]),
}


@pytest.fixture(autouse=True)
def small_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes downloads of some hundred bytes reach the disk in many pieces, as large ones do."""
    monkeypatch.setattr(limits, "FLUSH_BYTES", 48)


def operations(release: str, make: Make = World, *, power_lost: bool = True) -> list[str]:
    """The storage operations of the update, without faults."""
    world = on_release_1(make)
    world.offer(release)
    live(world, [], power_lost=power_lost)
    return list(world.storage.operations)


def sweep(release: str, make: Make = World, *, power_lost: bool = True) -> int:
    """Cut at every operation in every way. Returns the number of cuts."""
    start = on_release_1(make)
    start.offer(release)
    count = len(operations(release, make, power_lost=power_lost))
    tried = 0
    for place in range(count):
        for when in When:
            world = fork(start)
            assert live(world, [(place, when)], power_lost=power_lost) == 2
            ended(world, release, cuts=1)
            tried += 1
    return tried


def ended(world: World, release: str, *, cuts: int) -> None:
    """The update ended correctly."""
    serves, heard = ENDS[release]
    told = world.finals()[release]
    if release == "2" and cuts > 1 and told == ["trial_failed"]:
        serves, heard = "1", ["trial_failed"]  # interrupted too often: reverted and reported
    assert (world.pointed(), world.running(), told) == (serves, serves, heard)
    assert world.serving is not None
    assert world.serving.models[0].release == serves
    assert world.hub.runs() == serves
    if told != ["confirmed"]:  # a confirmed release may be restored after each cut
        assert world.activations.count(release) <= 2


@pytest.mark.parametrize("power_lost", [True, False])
@pytest.mark.parametrize("release", list(ENDS))
def test_a_cut_anywhere_leaves_a_valid_device_that_comes_to_the_right_end(
    release: str, power_lost: bool
) -> None:
    assert sweep(release, power_lost=power_lost) >= 90


@pytest.mark.parametrize("release", list(ENDS))
def test_a_second_cut_in_the_recovery_does_no_harm_either(release: str) -> None:
    start = on_release_1()
    start.offer(release)
    count = len(operations(release))
    tried = 0
    for first in range(0, count, 2):
        for second in range(0, count, 3):
            world = fork(start)
            cuts = [(first, When.WITHIN), (second, When.AFTER)]
            live(world, cuts, power_lost=True)
            ended(world, release, cuts=2)
            tried += 1
    assert tried >= 200


def recalled(world: World) -> bool:
    return settled(world) and world.finals().get("2", ["confirmed"])[-1] != "confirmed"


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_cut_anywhere_in_a_recall_leaves_a_valid_device_that_goes_back(confirmed: bool) -> None:
    start = on_release_1()
    start.offer("2")
    start.boot()
    start.start()
    if confirmed:
        start.run(settled)
    else:
        start.run(lambda world: world.stage is Stage.WATCHING, drain=False)
    start.offer("1", rollout="ro-2", action="revert")
    smooth = fork(start)
    live(smooth, [], power_lost=True, until=recalled)
    count = len(smooth.storage.operations)
    for place in range(count):
        for when in When:
            world = fork(start)
            assert live(world, [(place, when)], power_lost=True, until=recalled) == 2
            assert (world.pointed(), world.running()) == ("1", "1")
            heard = world.finals()["2"]
            if confirmed:
                assert heard == ["confirmed", "reverted"]
            else:  # a second cut may end the trial before the recall arrives
                assert heard in (["reverted"], ["trial_failed"])
    assert count >= 10


def test_a_release_that_takes_the_power_down_is_given_up_after_its_attempts() -> None:
    world = on_release_1()
    world.activations.clear()
    world.offer("brick")
    assert live(world, [], power_lost=True) == 3
    assert world.activations.count("brick") == 2
    assert (world.pointed(), world.finals()["brick"]) == ("1", ["trial_failed"])
    assert [one.reason for one in world.hub.outcomes.values()][-1] == "trial_interrupted"


def test_a_device_that_lost_its_state_goes_on_with_the_release_that_it_has() -> None:
    world = on_release_1()
    lose(world.storage.files, "state.json")
    world.offer("2")
    live(world, [], power_lost=True)
    assert world.pointed() == "2"
    assert world.finals() == {"1": ["confirmed"], "2": ["confirmed"]}


def test_a_device_that_lost_its_state_uses_no_outcome_id_again() -> None:
    world = on_release_1()
    before = set(world.hub.outcomes)
    lose(world.storage.files, "state.json")
    world.offer("2")
    live(world, [], power_lost=True)
    offered = {
        one.id.partition("/")[2] for one in world.hub.outcomes.values() if one.release == "2"
    }
    assert offered.isdisjoint(one.partition("/")[2] for one in before), "numbers of attempts"


def test_a_damaged_state_is_kept_aside_and_the_device_goes_on() -> None:
    world = on_release_1()
    replace(world.storage.files, "state.json", b'{"stage": "no')
    world.offer("2")
    live(world, [], power_lost=True)
    assert world.pointed() == "2"
    assert world.storage.files["state.json.damaged"] == b'{"stage": "no'


def test_a_candidate_that_lost_bytes_is_fetched_again() -> None:
    world = on_release_1()
    world.offer("2")
    world.boot()
    world.start()
    world.run(lambda world: world.stage is Stage.PROVING, drain=False)
    damaged = next(name for name in world.storage.files if name == "models/digits/b/model.onnx")
    world.storage.files[damaged] = b"zeros"
    served = world.hub.served_bytes
    live(world, [], power_lost=True)
    ended(world, "2", cuts=1)
    assert world.hub.served_bytes == served + len(model_bytes("2")), "the model, and no other file"


def test_a_device_whose_confirmed_slot_is_damaged_leans_on_the_other() -> None:
    world = on_release_1()
    world.offer("2")
    live(world, [], power_lost=True)
    active = world.mine.active
    world.storage.files[f"models/digits/{active}/model.onnx"] = b"zeros"
    world.hub.offer = None
    world.boot()
    world.start()
    world.run(lambda world: world.serving is not None)
    world.check()
    assert (world.pointed(), world.running()) == ("1", "1")


# Planted bugs.


def starts_without_leave(
    state: AgentState, event: Event, now: float
) -> tuple[AgentState, tuple[Effect, ...]]:
    """An answer without an acknowledgement counts as an admission."""
    if isinstance(event, CheckInAnswered) and state.soft.sent is not None:
        answer = msgspec.structs.replace(event.answer, acked=state.soft.sent.outcomes)
        event = msgspec.structs.replace(event, answer=answer)
    return step(state, event, now)


def pointer_before_proof(
    state: AgentState, event: Event, now: float
) -> tuple[AgentState, tuple[Effect, ...]]:
    state, effects = step(state, event, now)
    early = tuple(
        MovePointer(slots={one.model: one.slot}) for one in effects if isinstance(one, Prove)
    )
    return state, early + effects


def counter_after_trial(state: AgentState) -> bytes:
    models = {
        name: msgspec.structs.replace(mine, attempt=msgspec.structs.replace(mine.attempt, tries=0))
        for name, mine in state.models.items()
        if mine.attempt is not None
    }
    return to_store(msgspec.structs.replace(state, models=state.models | models))


def effects_before_state() -> World:
    world = World()
    world.effects_first = True
    return world


def waiting_for_leave(make: Make = World) -> World:
    world = make()
    world.hub.refuses_starts = 3
    return world


@pytest.mark.parametrize("power_lost", [True, False])
def test_a_cut_anywhere_while_it_waits_for_leave_does_no_harm(power_lost: bool) -> None:
    assert sweep("2", waiting_for_leave, power_lost=power_lost) >= 90


def test_the_sweep_finds_a_trial_that_begins_without_leave() -> None:
    with pytest.raises(AssertionError, match="had not admitted"):
        sweep("2", lambda: waiting_for_leave(lambda: World(core=starts_without_leave)))


def test_the_sweep_finds_a_pointer_that_moves_before_the_proof() -> None:
    with pytest.raises(AssertionError, match="the pointer names"):
        sweep("liar", lambda: World(core=pointer_before_proof))


def test_the_sweep_finds_a_counter_that_is_stored_after_the_trial() -> None:
    world = on_release_1(lambda: World(stored=counter_after_trial))
    world.offer("brick")
    with pytest.raises(AssertionError, match="not at rest"):
        live(world, [], power_lost=True)


def test_the_sweep_finds_effects_that_come_before_the_state() -> None:
    world = on_release_1(effects_before_state)
    world.offer("brick")
    with pytest.raises(AssertionError, match="not at rest"):
        live(world, [], power_lost=True)
