"""The upgrade from a device with one model, with power cuts, and an agent that is older than its files."""

import json

import pytest

from edgefleet.agent import limits
from edgefleet.agent.own_files import OwnFile
from edgefleet.agent.slots import POINTER, STATE, Slots
from edgefleet.agent.state import AgentState, ModelState
from edgefleet.agent.stored import OneModelState, to_store
from edgefleet.agent.table import Stage
from edgefleet.base.errors import OperatorError
from edgefleet.protocol.wire import encode
from support.device_world import World
from support.memory_storage import MemoryStorage, PowerCut, When
from support.own_files import content, lose, replace

OLD_STAGES = [
    stage for stage in Stage if stage not in (Stage.QUEUED, Stage.STAGED, Stage.SHADOWING)
]


def old_state(state: AgentState) -> bytes:
    """The state of one model as version 2 stored it."""
    (mine,) = [mine for name, mine in state.models.items() if name == "digits"]
    old = OneModelState(
        stage=mine.stage,
        active=mine.active,
        a=mine.a,
        b=mine.b,
        attempt=mine.attempt,
        attempts=state.attempts,
        ended=mine.ended,
        spool=state.spool,
        seq_reserved=state.seq_reserved,
        interval_s=state.interval_s,
        facts=state.facts,
        facts_known=state.facts_known,
    )
    fields = {"version": 2, **json.loads(encode(old))}
    for name in ("a", "b"):
        del fields[name]["leftover"]
    return json.dumps(fields).encode()


def old_device(stage: Stage = Stage.IDLE) -> World:
    """A device of version 2 in ``stage``, on release 1 with release 2 as its next one."""
    world = World()
    world.boot()
    world.start()
    world.offer("1")
    world.run_until_told("1")
    if stage is not Stage.IDLE:
        world.offer("sick" if stage is Stage.REVERTING else "2")
        world.run(lambda world: world.stage is stage, drain=False)
    files = world.storage.files
    mine = world.state.models["digits"]
    trial = mine.attempt is not None and mine.attempt.switched
    pointed = mine.attempt.slot if trial and mine.attempt else mine.active
    for name in [name for name in files if name.startswith("models/digits/")]:
        files[name.replace("models/digits", "slots")] = files.pop(name)
    replace(files, STATE, old_state(world.state))
    replace(files, POINTER, str(pointed).encode())  # version 2 moved it when the trial started
    world.activations.clear()
    return world


def ends(world: World, release: str) -> None:
    """The upgraded device serves ``release`` from its new place, and only from there."""
    world.run(
        lambda world: (
            world.served() == release and world.stage is Stage.IDLE and not world.state.spool
        )
    )
    world.check()
    name = world.state.models["digits"].active
    assert content(world.storage.files, POINTER) == f"digits {name}\n".encode()
    assert not [name for name in world.storage.files if name.startswith("slots/")]
    assert json.loads(content(world.storage.files, STATE))["version"] == 3


@pytest.mark.parametrize("stage", OLD_STAGES)
def test_a_device_with_one_model_goes_on_in_every_stage(stage: Stage) -> None:
    world = old_device(stage)
    if stage is Stage.REVERTING:
        world.hub.offers.clear()
    world.boot()
    world.start()
    assert list(world.state.models) == ["digits"]
    ends(world, "1" if stage in (Stage.IDLE, Stage.REVERTING) else "2")


def test_a_release_that_was_on_trial_is_not_the_one_to_go_back_to() -> None:
    world = old_device(Stage.WATCHING)
    assert world.storage.files[POINTER] == b"b"
    world.boot()
    world.start()
    assert content(world.storage.files, POINTER) == b"digits a\n"


@pytest.mark.parametrize("stage", [Stage.IDLE, Stage.FETCHING, Stage.WATCHING])
def test_agent_upgrade_cut_between_rename_and_save(stage: Stage) -> None:
    smooth = old_device(stage)
    smooth.boot()
    smooth.start()
    count = len(smooth.storage.operations)
    assert "rename slots/a" in smooth.storage.operations
    assert smooth.storage.operations.index("rename slots/a") < smooth.storage.operations.index(
        f"write {STATE}"
    )
    for place in range(count):
        for when in When:
            world = old_device(stage)
            world.boot()
            world.storage.cut_at, world.storage.cut_when = place, when
            with pytest.raises(PowerCut):
                world.start()
            world.boot()
            world.start()
            world.run(lambda world: "2" in world.finals() or stage is Stage.IDLE)
            confirmed = world.finals().get("2") == ["confirmed"]
            ends(world, "2" if confirmed else "1")  # a trial may be interrupted too often
            assert confirmed or stage is not Stage.FETCHING
    assert count >= 10


@pytest.mark.parametrize("renamed", [False, True])
def test_a_state_that_is_lost_in_the_upgrade_leaves_the_release_that_the_pointer_names(
    renamed: bool,
) -> None:
    world = old_device()
    if renamed:
        Slots(world.storage).load()
    lose(world.storage.files, STATE)
    world.hub.offers.clear()
    world.boot()
    world.start()
    ends(world, "1")


def test_a_full_disk_does_not_stop_the_upgrade() -> None:
    world = old_device()
    world.storage.capacity_bytes = sum(map(len, world.storage.files.values()))
    world.storage.files["reserve"] = bytes(limits.RESERVE_BYTES)
    world.storage.capacity_bytes += limits.RESERVE_BYTES
    world.hub.offers.clear()
    world.boot()
    world.start()
    ends(world, "1")


def test_a_device_that_replaced_one_model_by_another_has_both() -> None:
    disk = MemoryStorage()
    disk.files = {f"slots/{name}/model.onnx": name.encode() for name in ("a", "b")}
    fields = json.loads(old_device().storage.files[STATE])
    for name, model in (("b", "detector"), ("a", "digits")):
        fields[name] = fields["a"] | {"installed": fields["a"]["installed"] | {"model": model}}
    fields["active"] = "b"
    disk.files[STATE] = json.dumps(fields).encode()
    state = Slots(disk).load()
    assert state is not None
    assert {name: mine.active for name, mine in state.models.items()} == {
        "digits": None,
        "detector": "b",
    }
    assert sorted(name for name in disk.files if name.startswith("models/")) == [
        "models/detector/b/model.onnx",
        "models/digits/a/model.onnx",
    ]


def test_agent_downgrade_serves_on() -> None:
    """An agent that is too old for the files changes nothing, and leaves the process alone."""
    world = old_device()
    world.boot()
    world.start()
    ends(world, "1")
    ours = content(world.storage.files, STATE)
    OwnFile(world.storage, STATE).write(ours.replace(b'"version":3', b'"version":4'))
    before, serving = dict(world.storage.files), world.serving
    world.boot(power_lost=False)
    with pytest.raises(OperatorError) as refused:
        world.start()
    assert refused.value.code == "store_foreign"
    assert (world.storage.files, world.serving) == (before, serving)
    OwnFile(world.storage, STATE).write(ours)
    world.boot(power_lost=False)
    world.start()
    assert world.activations == ["1"], "the running process was adopted"


def test_an_empty_state_of_version_2_is_one_without_models() -> None:
    disk = MemoryStorage()
    fields = json.loads(old_state(AgentState(models={"digits": ModelState()})))
    disk.files[STATE] = json.dumps(fields).encode()
    assert Slots(disk).load() == AgentState()
    assert to_store(AgentState()) != disk.files[STATE]
