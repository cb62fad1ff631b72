"""Histories of a device with three models whose power fails up to three times.

Three rollouts run at once: a good release, one that fails its trial, and one that the hub takes back
after its confirmation. A history cuts the power at storage operations, counted from each start. It
may also lose the state file at the first cut, or keep the serving process alive.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from edgefleet.agent.slots import STATE, Slots
from support.device_world import MODELS, Step, World, at_rest, fork, step
from support.memory_storage import PowerCut, When
from support.own_files import lose

BOOTS = 10
LATER_CUTS = 60  # operations after a later start within which its cut comes

Cut = tuple[int, When]


@dataclass(frozen=True)
class History:
    """One cut for each of the first starts."""

    cuts: tuple[Cut, ...]
    power_lost: bool = True
    state_lost: bool = False


def on_release_1(*, core: Step = step, slots: type[Slots] = Slots) -> World:
    """A device that serves release 1 of three models, with the three rollouts offered."""
    world = World(core=core, slots=slots)
    world.boot()
    world.start()
    for model in MODELS:
        world.offer("1", model=model)
    world.run(all_ended)
    world.offer("2", model="digits")
    world.offer("sick", model="detector")
    world.offer("2", model="gate")
    return world


def all_ended(world: World) -> bool:
    """Every rollout has ended, and the hub knows it. Takes the release of gate back before."""
    if "confirmed" in world.told("ro-gate-2") and world.hub.offers["gate"].action == "install":
        world.offer("1", model="gate", rollout="ro-gate-2", action="revert")
    return at_rest(world) and all(world.hub.runs(model) == world.running(model) for model in MODELS)


def operations(start: World) -> int:
    """The number of storage operations of a life without cuts."""
    world = fork(start)
    world.boot()
    world.start()
    world.run(all_ended)
    return len(world.storage.operations)


def live(start: World, history: History) -> World:
    """Run the history to its end, and check the device after each cut and at the end."""
    world = fork(start)
    for boot in range(BOOTS):
        world.boot(power_lost=history.power_lost)
        if boot == 1 and history.state_lost:
            lose(world.storage.files, STATE)
        if boot < len(history.cuts):
            world.storage.cut_at, world.storage.cut_when = history.cuts[boot]
        try:
            world.start()
            world.run(all_ended)
        except PowerCut:
            check(world)
            continue
        check(world)
        check_end(world, history)
        return world
    raise AssertionError(f"not at rest after {BOOTS} starts: {history}")


def check(world: World) -> None:
    """Each model has a valid release, in the pointer and in the serving process."""
    world.check()
    for model in MODELS:
        assert world.pointed(model) is not None, f"the pointer names no release of {model}"
    if world.serving is not None:
        assert {one.model for one in world.serving.models} == set(MODELS), "a model is not served"
        on_trial = [one for one in world.serving.models if one.on_trial]
        assert len(on_trial) <= 1, "two models are in trial"
        for one in world.serving.models:
            known = one.on_trial or (one.model, one.release) in world.confirmed
            assert known, "a release serves that no rollout has confirmed"


def check_end(world: World, history: History) -> None:
    """The device serves what the rollouts ended with, and the hub knows it."""
    told = {model: world.told(f"ro-{model}-2".replace("digits-", "")) for model in MODELS}
    for model in MODELS:
        assert world.served(model) == world.pointed(model) == world.hub.runs(model)
    digits = "2" if "confirmed" in told["digits"] else "1"
    if not history.state_lost:  # without its state a device reports no end of what it forgot
        assert world.served("digits") == digits
        assert world.served("gate") == "1"
    assert world.served("detector") == "1", "the release that failed its trial"
    assert world.activations.count("sick") <= 2 + history.state_lost * 2


def every_cut(count: int) -> Iterator[History]:
    """One cut, at each operation in each way."""
    for place in range(count):
        for when in When:
            yield History(cuts=((place, when),))


def drawn(count: int, number: int, *, seed: int) -> Iterator[History]:
    """``number`` different histories with one to three cuts."""
    chance, known = Random(seed), set[History]()
    while len(known) < number:
        within = (count, *[LATER_CUTS] * chance.randrange(3))
        cuts = [(chance.randrange(end), chance.choice(list(When))) for end in within]
        history = History(
            cuts=tuple(cuts),
            power_lost=chance.random() < 0.75,
            state_lost=chance.random() < 0.25,
        )
        if history not in known:
            known.add(history)
            yield history
