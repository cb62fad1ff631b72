"""A device with a full disk changes nothing, logs it, and continues once there is space."""

import pytest

from edgefleet.agent import limits
from edgefleet.agent.slots import RESERVE, Slots
from edgefleet.agent.state import AgentState
from edgefleet.agent.stored import to_store
from edgefleet.agent.table import Stage
from edgefleet.base.errors import DeviceError
from support.device_world import World
from support.memory_storage import MemoryStorage


def test_an_update_that_finds_no_room_is_deferred_and_goes_on_when_there_is_some() -> None:
    world = World()
    world.offer("1")
    world.boot()
    world.start()
    world.run_until_told("1")
    used = sum(map(len, world.storage.files.values()))
    world.storage.capacity_bytes = used + limits.DISK_MARGIN_BYTES // 2
    before = {name: data for name, data in world.storage.files.items() if "digits/a" in name}
    world.offer("2")
    world.run(lambda world: any(one.kind == "deferred" for one in world.hub.outcomes.values()))
    world.run(lambda world: world.state.soft.models["digits"].work_failures >= 3)
    deferred = [one for one in world.hub.outcomes.values() if one.kind == "deferred"]
    assert [(one.release, one.reason) for one in deferred] == [("2", "disk_full")]
    assert (world.pointed(), world.running(), world.stage) == ("1", "1", Stage.QUEUED)
    assert before == {n: d for n, d in world.storage.files.items() if "digits/a" in n}
    world.storage.capacity_bytes = 1 << 40
    world.run_until_told("2")
    assert world.finals()["2"] == ["confirmed"]


def test_the_reserve_is_given_up_so_that_the_state_can_be_saved() -> None:
    disk = MemoryStorage()
    slots = Slots(disk)
    slots.make_reserve()
    disk.files["log of another program"] = b""
    disk.capacity_bytes = limits.RESERVE_BYTES
    assert slots.save(to_store(AgentState()))
    assert RESERVE not in disk.files
    assert Slots(disk).load() == AgentState()
    disk.capacity_bytes = sum(map(len, disk.files.values()))
    with pytest.raises(DeviceError):
        slots.save(to_store(AgentState(attempts=10**9)))
    assert Slots(disk).load() == AgentState(), "the old state is intact"


def test_a_state_that_did_not_change_is_not_written() -> None:
    disk = MemoryStorage()
    slots = Slots(disk)
    assert slots.save(to_store(AgentState()))
    assert not slots.save(to_store(AgentState()))
    assert not Slots(disk).save(to_store(AgentState()))
