"""The arbiter in small worlds: every state that can be reached is explored, with planted bugs."""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from edgefleet.agent import arbiter
from edgefleet.agent.arbiter import Act, Member, Room, Unit, decide, decide_among
from edgefleet.agent.table import IN_TRIAL, WORKING, Stage

LOADING = (Stage.QUEUED, Stage.MANIFEST, Stage.FETCHING)
SWITCHED = (*IN_TRIAL, Stage.REVERTING)


@dataclass(frozen=True)
class Case:
    """Units as tuples of the sizes of their models, and the room on the disk."""

    units: tuple[tuple[int, ...], ...]
    room: int
    returns: tuple[int, ...] = ()  # units that the hub sends back
    others: int = 0  # bytes that another program may take for a while

    @property
    def members(self) -> list[tuple[int, int]]:
        """(unit, size) of each model."""
        return [(unit, size) for unit, sizes in enumerate(self.units) for size in sizes]

    def fits(self, unit: int) -> bool:
        return sum(self.units[unit]) <= self.room


@dataclass(frozen=True)
class Model:
    stage: Stage = Stage.QUEUED
    busy: bool = False
    waits: bool = False
    here: bool = False  # its bytes are on the disk


@dataclass(frozen=True)
class State:
    models: tuple[Model, ...]
    taken: int = 0  # by another program

    def change(self, number: int, **changes: object) -> "State":
        models = list(self.models)
        models[number] = replace(models[number], **changes)  # type: ignore[arg-type] - fields by name
        return replace(self, models=tuple(models))


def free_bytes(case: Case, state: State) -> int:
    used = sum(
        size for (_, size), model in zip(case.members, state.models, strict=True) if model.here
    )
    return case.room - used - state.taken


def units_of(case: Case, state: State) -> list[Unit]:
    found: list[Unit] = []
    for number in range(len(case.units)):
        members = tuple(
            Member(
                model=str(at),
                stage=state.models[at].stage,
                busy=state.models[at].busy,
                waits=state.models[at].waits,
                needs_bytes=size if state.models[at].stage in LOADING else 0,
            )
            for at, (unit, size) in enumerate(case.members)
            if unit == number and state.models[at].stage is not Stage.IDLE
        )
        if members:
            found.append(Unit(rollout=str(number), members=members, returns=number in case.returns))
    return sorted(found, key=lambda unit: (not unit.goes_back, not unit.in_trial))


def settle(case: Case, state: State) -> State:
    """Execute the arbiter's actions, as the end of a step does."""
    for _ in range(2):  # a dropped slot lets the next step begin
        leftovers = tuple(
            str(at)
            for at, model in enumerate(state.models)
            if model.here and model.stage in (Stage.IDLE, Stage.QUEUED)
        )
        room = Room(free_bytes=free_bytes(case, state), leftovers=leftovers)
        for act, name in decide(units_of(case, state), room):
            state = execute(state, act, int(name))
    return state


def execute(state: State, act: Act, at: int) -> State:
    stage = state.models[at].stage
    match act:
        case Act.MANIFEST:
            return state.change(at, stage=Stage.MANIFEST, busy=True)
        case Act.BYTES | Act.PROVE:
            return state.change(at, busy=True)
        case Act.ASK:
            return state.change(at, stage=Stage.ANNOUNCING)
        case Act.WAIT:
            return state.change(at, stage=Stage.STAGED)
        case Act.PAUSE:
            paused = stage if stage is Stage.PROVING else Stage.QUEUED
            return state.change(at, stage=paused, busy=False)
        case Act.NO_ROOM:
            return state.change(at, stage=Stage.QUEUED, waits=True)
        case Act.DROP:
            state = state.change(at, here=False)
            for waiting, model in enumerate(state.models):
                if model.waits:
                    state = state.change(waiting, waits=False)
            return state


def good_events(case: Case, state: State) -> Iterator[State]:
    """The next states if everything that is in progress goes well."""
    for at, (unit, size) in enumerate(case.members):
        model = state.models[at]
        if model.busy and model.stage is Stage.MANIFEST:
            yield state.change(at, stage=Stage.FETCHING, busy=False)
        elif model.busy and model.stage is Stage.FETCHING and free_bytes(case, state) >= size:
            yield state.change(at, stage=Stage.PROVING, busy=False, here=True)
        elif model.busy and model.stage is Stage.FETCHING:
            yield state.change(at, stage=Stage.QUEUED, busy=False, waits=True)
        elif model.busy and model.stage is Stage.PROVING:
            proved = Stage.ACTIVATING if unit in case.returns else Stage.STAGED
            yield state.change(at, stage=proved, busy=False)
        elif model.waits:
            yield state.change(at, waits=False)
    for unit, members in by_unit(case).items():
        stages = {state.models[at].stage for at in members}
        if Stage.ANNOUNCING in stages:  # the hub admits one unit in a check-in
            yield moved(state, members, Stage.ANNOUNCING, Stage.ACTIVATING)
        if stages == {Stage.ACTIVATING} and unit not in case.returns:
            yield moved(state, members, Stage.ACTIVATING, Stage.WATCHING)
        if stages in ({Stage.WATCHING}, {Stage.REVERTING}) or (
            stages == {Stage.ACTIVATING} and unit in case.returns
        ):
            yield ended(state, members, here=False)  # the release that it replaces makes room
    if state.taken:
        yield replace(state, taken=0)


def bad_events(case: Case, state: State) -> Iterator[State]:
    """Failed proofs and trials, cancelled rollouts, and a disk that another program fills."""
    for members in by_unit(case).values():
        stages = {state.models[at].stage for at in members}
        if Stage.WATCHING in stages:
            yield moved(state, members, Stage.WATCHING, Stage.REVERTING)
        if not stages & set(SWITCHED) and stages != {Stage.IDLE}:
            yield ended(state, members, here=None)
    if case.others and not state.taken:
        yield replace(state, taken=min(case.others, max(0, free_bytes(case, state))))


def by_unit(case: Case) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for at, (unit, _) in enumerate(case.members):
        found.setdefault(unit, []).append(at)
    return found


def moved(state: State, members: list[int], source: Stage, target: Stage) -> State:
    for at in members:
        if state.models[at].stage is source:
            state = state.change(at, stage=target)
    return state


def ended(state: State, members: list[int], *, here: bool | None) -> State:
    """The unit is over. Its files stay if ``here`` is None."""
    for at in members:
        stays = state.models[at].here if here is None else here
        state = state.change(at, stage=Stage.IDLE, busy=False, waits=False, here=stays)
    return state


def explore(case: Case) -> int:
    """Check every reachable state. Returns their number."""
    first = settle(case, State(models=(Model(),) * len(case.members)))
    nexts: dict[State, list[State]] = {}  # without bad events
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        if state in nexts:
            continue
        check(case, state)
        nexts[state] = [settle(case, one) for one in good_events(case, state)]
        waiting.extend(nexts[state])
        waiting.extend(settle(case, one) for one in bad_events(case, state))
    lost = set(nexts) - with_way_out(case, nexts)
    assert not lost, f"{len(lost)} states without a way out, such as {min(lost, key=str)}"
    return len(nexts)


def with_way_out(case: Case, nexts: dict[State, list[State]]) -> set[State]:
    """The states from which every unit that fits on the disk can come to its end."""
    units = by_unit(case)

    def is_over(state: State) -> bool:
        return all(
            state.models[at].stage is Stage.IDLE
            for unit, members in units.items()
            if case.fits(unit)
            for at in members
        )

    before: dict[State, list[State]] = {}
    for state, following in nexts.items():
        for one in following:
            before.setdefault(one, []).append(state)
    found, waiting = set[State](), deque(filter(is_over, nexts))
    while waiting:
        state = waiting.popleft()
        if state not in found:
            found.add(state)
            waiting.extend(before.get(state, ()))
    return found


def check(case: Case, state: State) -> None:
    trials = 0
    for unit, members in by_unit(case).items():
        stages = [state.models[at].stage for at in members]
        if unit not in case.returns:
            trials += any(stage in IN_TRIAL for stage in stages)
        if any(stage in SWITCHED for stage in stages) and unit not in case.returns:
            assert all(stage in SWITCHED for stage in stages), "a unit is switched in part"
    assert trials <= 1, "two units are in trial"
    busy = [model.stage for model in state.models if model.busy]
    assert sum(stage in LOADING for stage in busy) <= 1, "two downloads at once"
    assert busy.count(Stage.PROVING) <= 1, "two proofs at once"


CASES = {
    "two models": Case(units=((1,), (1,)), room=2),
    "two models, one disk": Case(units=((1,), (1,)), room=1),
    "three models": Case(units=((1,), (1,), (1,)), room=2),
    "one goes back": Case(units=((1,), (1,)), room=2, returns=(1,)),
    "two go back": Case(units=((1,), (1,), (1,)), room=3, returns=(1, 2)),
    "two bundles of two": Case(units=((1, 1), (1, 1)), room=2),
    "two bundles and a guest on the disk": Case(units=((1, 1), (1, 1)), room=2, others=1),
    "a bundle over the disk": Case(units=((2, 2), (2,)), room=3),
    "a bundle that goes back": Case(units=((1, 1), (1,)), room=2, returns=(0,)),
}


@pytest.mark.parametrize("name", list(CASES))
def test_no_state_has_two_trials_and_each_has_a_way_out(name: str) -> None:
    assert explore(CASES[name]) >= 20


def test_bundle_over_disk_is_not_begun() -> None:
    case = CASES["a bundle over the disk"]
    state = settle(case, State(models=(Model(),) * 3))
    seen: list[State] = []
    while state not in seen:
        seen.append(state)
        following = [settle(case, one) for one in good_events(case, state)]
        state = following[0] if following else state
    assert not any(model.here for state in seen for model in state.models[:2])
    assert any(state.models[2].here for state in seen), "the model that fits goes first"


def test_two_bundles_one_disk_no_deadlock() -> None:
    assert explore(CASES["two bundles and a guest on the disk"]) >= 100


def asks_beside_a_trial(units: list[Unit]) -> Iterator[tuple[Act, str]]:
    """Planted bug: a staged unit asks, and one that asks goes on asking, beside a trial."""
    for unit in units:
        for member in unit.members:
            if member.stage is Stage.STAGED:
                yield Act.ASK, member.model


def fits_model_by_model(unit: Unit, room: Room) -> bool:
    """Planted bug: room is reserved for the next model alone."""
    (first, *_) = (member for member in unit.members if member.stage is Stage.FETCHING)
    return room.free_bytes is None or first.needs_bytes <= room.free_bytes


def any_is_staged(unit: Unit) -> bool:
    """Planted bug: a unit asks as soon as one of its models is staged."""
    return unit.any_in(Stage.STAGED)


@pytest.mark.parametrize(
    ("place", "bug", "case", "found"),
    [
        ("_trial", asks_beside_a_trial, "two models", "two units are in trial"),
        ("_fits", fits_model_by_model, "a bundle over the disk", "without a way out"),
        ("_fits", fits_model_by_model, "two bundles and a guest on the disk", "without a way out"),
        ("_is_staged", any_is_staged, "two bundles of two", "switched in part"),
    ],
)
def test_the_exploration_finds_a_planted_bug(
    place: str, bug: object, case: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arbiter, place, bug)
    monkeypatch.setattr(arbiter, "_decide_alone", alone_as_among)
    with pytest.raises(AssertionError, match=found):
        explore(CASES[case])


def alone_as_among(member: Member, room: Room) -> tuple[tuple[Act, str], ...]:
    return decide_among([Unit(rollout="0", members=(member,))], room)


def test_one_model_alone_is_decided_as_among_several() -> None:
    for stage, busy, waits, returns, needs, free in itertools.product(
        Stage, (False, True), (False, True), (False, True), (0, 5), (None, 0, 9)
    ):
        for leftovers in ((), ("digits",), ("gate",), ("digits", "gate")):
            member = Member(
                model="digits", stage=stage, busy=busy and stage in WORKING,
                waits=waits and stage is Stage.QUEUED, needs_bytes=needs, needs_mib=needs,
            )  # fmt: skip
            unit = Unit(rollout="ro-1", members=(member,), returns=returns)
            room = Room(free_bytes=free, free_mib=free, leftovers=leftovers)
            assert decide([unit], room) == decide_among([unit], room)


def proving(model: str, needs_mib: int, *, busy: bool = False) -> Unit:
    member = Member(model=model, stage=Stage.PROVING, needs_mib=needs_mib, busy=busy)
    return Unit(rollout=f"ro-{model}", members=(member,))


def test_a_proof_waits_for_memory_and_a_smaller_one_goes_first() -> None:
    units = [proving("large", 500), proving("small", 50)]
    assert decide(units, Room()) == ((Act.PROVE, "large"),), "without a limit the first one goes"
    assert decide(units, Room(free_mib=100)) == ((Act.PROVE, "small"),)
    assert decide(units, Room(free_mib=10)) == ()
    units = [proving("large", 500), proving("small", 50, busy=True)]
    assert decide(units, Room()) == (), "one proof at a time"


def test_a_unit_that_goes_back_stops_a_proof() -> None:
    back = Unit(rollout="ro-b", members=(Member(model="gate", stage=Stage.PROVING),), returns=True)
    units = [proving("digits", 1, busy=True), back]
    assert decide(units, Room()) == ((Act.PAUSE, "digits"), (Act.PROVE, "gate"))


def test_leftovers_make_room_but_not_those_of_an_earlier_unit() -> None:
    def unit(model: str, stage: Stage, *, waits: bool = False) -> Unit:
        member = Member(model=model, stage=stage, waits=waits, needs_bytes=10)
        return Unit(rollout=f"ro-{model}", members=(member,))

    first, second = unit("a", Stage.QUEUED, waits=True), unit("b", Stage.FETCHING)
    room = Room(free_bytes=5, leftovers=("a", "b", "c"))
    assert decide([first, second], room) == ((Act.NO_ROOM, "b"), (Act.DROP, "c"))
    assert decide([second, first], room) == ((Act.NO_ROOM, "b"), (Act.DROP, "a"))
