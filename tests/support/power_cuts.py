"""Lives of a simulated device whose power fails at chosen storage operations."""

from collections.abc import Callable

from edgefleet.agent.table import Stage
from support.device_world import World
from support.memory_storage import PowerCut, When

REBOOTS = 8

Make = Callable[[], World]


def settled(world: World) -> bool:
    return (
        world.stage is Stage.IDLE
        and not world.state.spool
        and world.state.soft.sent is None
        and world.state.soft.switch is None
        and world.hub.offer is not None
        and world.hub.offer.release in world.finals()
        and world.hub.runs() == world.running()
    )


def on_release_1(make: Make = World) -> World:
    """A world whose device serves release 1, confirmed."""
    world = make()
    world.offer("1")
    world.boot()
    world.start()
    world.run(settled)
    assert world.pointed() == "1"
    return world


def live(
    world: World,
    cuts: list[tuple[int, When]],
    *,
    power_lost: bool,
    until: Callable[[World], bool] = settled,
) -> int:
    """Boot and run to the end, with one of ``cuts`` per boot. Returns the number of boots."""
    for boot in range(REBOOTS):
        world.boot(power_lost=power_lost)
        if boot < len(cuts):
            world.storage.cut_at, world.storage.cut_when = cuts[boot]
        try:
            world.start()
            world.run(until)
        except PowerCut:
            world.check()
            continue
        world.check()
        return boot + 1
    raise AssertionError(f"still not at rest after {REBOOTS} boots: {world.state}")
