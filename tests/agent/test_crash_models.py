"""Power cuts on a device with three models. ``make sweep`` runs thousands of histories more."""

import itertools

import msgspec
import pytest

from edgefleet.agent import before_trial, limits
from edgefleet.agent.effect import Effect, MovePointer
from edgefleet.agent.event import Activated, Event
from edgefleet.agent.slots import Slots
from edgefleet.agent.state import AgentState, ModelState, SlotName, pointer
from edgefleet.agent.step import step
from edgefleet.agent.stored import to_store
from edgefleet.agent.table import IN_TRIAL
from support.crash_histories import drawn, every_cut, live, on_release_1, operations
from support.device_world import World
from support.memory_storage import MemoryStorage, PowerCut, When

DRAWN = 150


@pytest.fixture(autouse=True)
def small_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes downloads of some hundred bytes reach the disk in many pieces, as large ones do."""
    monkeypatch.setattr(limits, "FLUSH_BYTES", 48)


def sweep(start: World, *, step: int = 1) -> None:
    """Cut at each ``step``-th operation in each way."""
    for history in itertools.islice(every_cut(operations(start)), 0, None, step):
        live(start, history)


def test_a_cut_anywhere_leaves_each_of_three_models_with_a_valid_release() -> None:
    start = on_release_1()
    assert operations(start) >= 100
    sweep(start, step=4)


def test_three_cuts_and_a_lost_state_leave_valid_releases_too() -> None:
    start = on_release_1()
    for history in drawn(operations(start), DRAWN, seed=1):
        live(start, history)


# Planted bugs.


def test_the_sweep_finds_two_trials_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before_trial, "_is_trial_taken", lambda _: False)
    start = on_release_1()
    start.hub.admits_all = True
    start.hub.interval_s = 1.0
    start.hub.refuses_starts = 12  # so that several models ask at once
    with pytest.raises(AssertionError, match="two models are in trial"):
        sweep(start)


def points_at_the_trial(
    state: AgentState, event: Event, now: float
) -> tuple[AgentState, tuple[Effect, ...]]:
    """The pointer moves when the trial starts, as it did before there were several models."""
    state, effects = step(state, event, now)
    if isinstance(event, Activated):
        trials = {
            name: mine.attempt.slot
            for name, mine in state.models.items()
            if mine.stage in IN_TRIAL and mine.attempt is not None
        }
        effects = (MovePointer(slots=pointer(state.models) | trials), *effects)
    return state, effects


def test_the_sweep_finds_a_pointer_that_moves_with_the_trial() -> None:
    start = on_release_1()
    start.core = points_at_the_trial
    with pytest.raises(AssertionError, match="never confirmed"):
        sweep(start)


# Two models that are switched together.


class FilePerModel(Slots):
    """Planted bug: a pointer file for each model."""

    def pointer(self) -> dict[str, SlotName]:
        found: dict[str, SlotName] = {}
        for model in self.storage.list("models"):
            content = self.storage.read(f"models/{model}/active")
            if content is not None:
                found[model] = "a" if content == b"a" else "b"
        return found

    def move_pointer(self, slots: dict[str, SlotName]) -> None:  # type: ignore[override] - a dict
        for model, name in slots.items():
            self.storage.write(f"models/{model}/active", name.encode())


def mixtures(kind: type[Slots]) -> set[tuple[tuple[str, str], ...]]:
    """The sets that the pointer names after a cut anywhere in a switch of two models."""
    found: set[tuple[tuple[str, str], ...]] = set()
    before: dict[str, SlotName] = {"detector": "a", "digits": "a"}
    after: dict[str, SlotName] = {"detector": "b", "digits": "b"}
    states = [
        AgentState(models={name: ModelState(active=place) for name, place in slots.items()})
        for slots in (before, after)
    ]
    for place, when in itertools.product(range(12), When):
        disk = MemoryStorage()
        slots = kind(disk)
        slots.save(to_store(states[0]))
        slots.move_pointer(before)
        disk.power_on()
        disk.cut_at, disk.cut_when = place, when
        try:
            slots.save(to_store(states[1]))
            slots.move_pointer(after)
        except PowerCut:
            pass
        disk.power_on()
        found.add(tuple(sorted(kind(disk).pointer().items())))
    return found


def test_two_models_that_are_switched_together_are_never_mixed() -> None:
    whole = {(("detector", name), ("digits", name)) for name in ("a", "b")}
    assert mixtures(Slots) == whole
    assert mixtures(FilePerModel) > whole, "a pointer file for each model mixes releases"


def test_a_state_file_names_all_models() -> None:
    state = AgentState(models={"detector": ModelState(active="a"), "digits": ModelState()})
    assert msgspec.json.decode(to_store(state))["models"].keys() == {"detector", "digits"}
