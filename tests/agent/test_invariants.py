"""Invariants of the core under any order of events, with power cuts anywhere."""

from collections import Counter

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edgefleet.agent import limits
from edgefleet.agent.effect import Apply, Effect, MovePointer, SetTimer
from edgefleet.agent.event import Activated, Booted, Event, Fetched, Proved
from edgefleet.agent.state import AgentState, ModelSoft, ModelState, pointer, slot
from edgefleet.agent.step import step
from edgefleet.agent.stored import from_store, to_store
from edgefleet.agent.table import IN_TRIAL, Stage
from edgefleet.protocol.serving import ProveResult
from support.agent_world import any_event
from support.device_world import MODELS, Step, World, state_of_each_stage
from support.memory_storage import PowerCut, When

Stepped = tuple[AgentState, tuple[Effect, ...]]
PASSING = ("trial_started", "deferred", "withdrawn")  # an attempt may end after them


def check_state(state: AgentState) -> None:
    for mine in state.models.values():
        check_model(mine)
    trials = [mine for mine in state.models.values() if is_in_trial(mine)]
    assert len(trials) <= 1, "one trial on a device"
    ids = [outcome.id for outcome in state.spool]
    assert len(ids) == len(set(ids)) <= limits.SPOOL_OUTCOMES
    for soft in state.soft.models.values():
        assert len(soft.tallies) <= limits.TALLIES
    assert state.soft.seq <= state.seq_reserved, "only reserved numbers are sent"


def is_in_trial(mine: ModelState) -> bool:
    return mine.stage in IN_TRIAL and mine.attempt is not None and mine.attempt.action == "install"


def check_model(state: ModelState) -> None:
    attempt = state.attempt
    assert (attempt is None) == (state.stage is Stage.IDLE)
    if state.active is not None:
        active = slot(state, state.active)
        assert active.installed is not None
        assert active.proved, "the confirmed slot was proved"
        assert attempt is None or attempt.slot != state.active, (
            "an update does not touch the active slot"
        )
    if attempt is not None:
        assert attempt.tries <= attempt.max_attempts
        if state.stage in (Stage.STAGED, Stage.ANNOUNCING, Stage.ACTIVATING, Stage.WATCHING):
            assert slot(state, attempt.slot).proved, "only proved slots are tried"
    assert len(state.ended) <= limits.ENDED_ATTEMPTS


def check_effects(state: AgentState, effects: tuple[Effect, ...], now: float) -> None:
    assert isinstance(effects[-1], SetTimer)
    assert effects[-1].at <= now + 3600
    for effect in effects:
        if isinstance(effect, Apply):
            for model in effect.models:
                for wanted in (model.confirmed, model.trial):
                    if wanted is not None:
                        mine = slot(state.models[model.model], wanted.slot)
                        assert mine.proved, "only proved slots are activated"
        elif isinstance(effect, MovePointer):
            for name, place in effect.slots.items():
                mine = slot(state.models[name], place)
                assert mine.confirmed, "the pointer names confirmed slots only"


STATES = state_of_each_stage()
WALK = st.lists(st.tuples(st.integers(0, 30), st.floats(0, 200), st.booleans()), max_size=40)


def walk(core: Step, start: Stage, choices: list[tuple[int, float, bool]]) -> set[int]:
    """Run events in any order from any stage, with restarts in between.

    Returns the number of reported ends of attempts.
    """
    state, now = STATES[start], 5000.0
    finals: Counter[str] = Counter()
    for index, later, crash in choices:
        now += later
        if crash and index % 5 == 0:
            state = from_store(to_store(state))
            event = any_event(state)[index % 2]
        else:
            event = any_event(state)[index % len(any_event(state))]
        known = {outcome.id for outcome in state.spool}
        state, effects = core(state, event, now)
        check_state(state)
        check_effects(state, effects, now)
        for outcome in state.spool:
            if outcome.id not in known and outcome.kind not in PASSING:
                finals[outcome.id.rpartition("/")[0]] += 1
    return set(finals.values())


@settings(max_examples=300)
@given(st.sampled_from(list(Stage)), WALK)
def test_no_order_of_events_brings_the_core_into_an_unsound_state(
    start: Stage, choices: list[tuple[int, float, bool]]
) -> None:
    assert walk(step, start, choices) <= {1}, "an attempt ends once"


def with_attempts(state: AgentState, **changes: object) -> AgentState:
    """The state with changed attempts of all models."""
    models = {
        name: msgspec.structs.replace(
            mine, attempt=mine.attempt and msgspec.structs.replace(mine.attempt, **changes)
        )
        for name, mine in state.models.items()
    }
    return msgspec.structs.replace(state, models=models)


def endless_tries(state: AgentState, event: Event, now: float) -> Stepped:
    """Planted bug: a restart in a trial always repeats the trial."""
    if isinstance(event, Booted):
        state, effects = step(with_attempts(state, max_attempts=99), event, now)
        return with_attempts(state, max_attempts=2), effects
    return step(state, event, now)


def says_it_twice(state: AgentState, event: Event, now: float) -> Stepped:
    """Planted bug: a refusal is reported again at the end of another attempt."""
    new, effects = step(state, event, now)
    if len(new.spool) > len(state.spool) and new.spool[-1].kind == "refused":
        again = msgspec.structs.replace(new.spool[-1], id=new.spool[-1].id + "-again")
        new = msgspec.structs.replace(new, spool=(*new.spool, again))
    return new, effects


def trusts_without_proof(state: AgentState, event: Event, now: float) -> Stepped:
    """Planted bug: a downloaded release is tried without a proof."""
    soft = state.soft.models.get("digits", ModelSoft())
    if isinstance(event, Fetched) and event.job == soft.work:
        while (mine := state.models["digits"]).stage is Stage.FETCHING:
            state, _ = step(state, Fetched(model="digits", job=job_of(state)), now)
        passed = ProveResult(passed=True)
        state, effects = step(state, Proved(model="digits", job=job_of(state), result=passed), now)
        mine = state.models["digits"]
        name = mine.attempt.slot if mine.attempt else "a"
        empty = msgspec.structs.replace(slot(mine, name), proved=False)
        changed = msgspec.structs.replace(mine, **{name: empty})
        return msgspec.structs.replace(state, models=state.models | {"digits": changed}), effects
    return step(state, event, now)


def job_of(state: AgentState) -> int:
    return state.soft.models["digits"].work or 0


@pytest.mark.parametrize("bug", [endless_tries, says_it_twice, trusts_without_proof])
def test_a_planted_bug_is_found(bug: Step) -> None:
    @settings(max_examples=1000, database=None, derandomize=True, phases=[Phase.generate])
    @given(st.sampled_from(list(Stage)), WALK)
    def search(start: Stage, choices: list[tuple[int, float, bool]]) -> None:
        assert walk(bug, start, choices) <= {1}

    with pytest.raises(AssertionError):
        search()


MODEL = st.sampled_from(MODELS)
LIFE = st.one_of(
    st.tuples(st.just("offer"), MODEL, st.sampled_from(["1", "2", "sick", "liar", "brick"])),
    st.tuples(st.just("recall"), MODEL, st.sampled_from(["1", "2"])),
    st.tuples(st.just("withdraw"), MODEL, st.none()),
    st.tuples(st.just("live"), MODEL, st.integers(1, 60)),
    st.tuples(st.just("serving dies"), MODEL, st.none()),
    st.tuples(st.just("agent dies"), MODEL, st.integers(0, 40)),
    st.tuples(
        st.just("update, and power cut"),
        MODEL,
        st.tuples(
            st.sampled_from(["1", "2", "sick", "liar"]),
            st.integers(0, 60),
            st.sampled_from(list(When)),
        ),
    ),
)
Life = list[tuple[str, str, object]]


def whole_life(world: World, life: Life) -> set[int]:
    """Run with faults, then without, until nothing changes. Returns the ends that the hub received."""
    world.hub.interval_s = 5.0
    world.boot()
    world.start()
    for rollouts, (what, model, how) in enumerate(life):
        live_through(world, what, model, how, rollouts)
        world.check()
        check_state(world.state)
    heal(world)
    heard: Counter[str] = Counter()
    for one in world.hub.outcomes.values():
        if one.kind not in PASSING:
            heard[one.id.rpartition("/")[0]] += 1
    return set(heard.values())


@settings(max_examples=200)
@given(st.lists(LIFE, max_size=25))
def test_a_device_whose_power_fails_anywhere_serves_a_proved_release_and_ends_attempts_once(
    life: Life,
) -> None:
    assert whole_life(World(), life) <= {1}, "an attempt ends once"


def moves_the_pointer_with_the_trial(state: AgentState, event: Event, now: float) -> Stepped:
    """Planted bug: the pointer names the slot in trial before its confirmation."""
    state, effects = step(state, event, now)
    if isinstance(event, Activated):
        slots = {
            name: mine.attempt.slot for name, mine in state.models.items() if is_in_trial(mine)
        }
        effects = (MovePointer(slots=pointer(state.models) | slots), *effects)
    return state, effects


def test_a_planted_bug_is_found_in_a_life() -> None:
    @settings(max_examples=2000, database=None, derandomize=True, phases=[Phase.generate])
    @given(st.lists(LIFE, min_size=5, max_size=25))
    def search(life: Life) -> None:
        whole_life(World(core=moves_the_pointer_with_the_trial), life)

    with pytest.raises(AssertionError, match="the pointer names"):
        search()


def live_through(world: World, what: str, model: str, how: object, rollouts: int) -> None:
    match what:
        case "offer":
            world.offer(str(how), model=model, rollout=f"ro-{rollouts}")
        case "recall":
            world.offer(str(how), model=model, rollout=f"ro-{rollouts}", action="revert")
        case "withdraw":
            world.hub.offers.pop(model, None)
        case "live":
            steps(world, int(str(how)))
        case "serving dies":
            world.serving = None
        case "agent dies":
            steps(world, int(str(how)))
            reboot(world, power_lost=False)
        case _:
            assert isinstance(how, tuple)
            release, place, world.storage.cut_when = how
            world.offer(release, model=model, rollout=f"ro-{rollouts}")
            world.storage.cut_at = len(world.storage.operations) + place
            steps(world, 60)
            reboot(world, power_lost=True)


def steps(world: World, count: int) -> None:
    left = iter(range(count))
    try:
        world.run(lambda _: next(left, None) is None, drain=False)
    except PowerCut:
        world.check()
        reboot(world, power_lost=True)


def reboot(world: World, *, power_lost: bool) -> None:
    """Boot until the agent's first steps end. Gives up after two boots without an end."""
    for _ in range(4):
        world.boot(power_lost=power_lost)
        try:
            world.start()
        except PowerCut:
            world.check()
        else:
            return
    raise AssertionError("the device never gets through its first steps")


def heal(world: World) -> None:
    """Safety under faults, then without faults until nothing changes."""
    world.hub.offers.clear()
    reboot(world, power_lost=True)
    for _ in range(3):
        steps(world, 60)
    assert {mine.stage for mine in world.state.models.values()} <= {Stage.IDLE}
    assert not world.state.spool
    world.check()
    for model in MODELS:
        assert world.pointed(model) == world.running(model) == world.served(model)
        assert world.hub.runs(model) == world.running(model)
