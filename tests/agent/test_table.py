"""The table is total over what the core can meet: every event in every stage is answered."""

import msgspec
import pytest

from edgefleet.agent.event import (
    Activated,
    ActivationFailed,
    Booted,
    CheckInAnswered,
    CheckInFailed,
    Event,
    Fetched,
    ManifestOpened,
    Proved,
    ServingSeen,
    Woke,
    WorkFailed,
)
from edgefleet.agent.state import AgentState, Soft, from_store, to_store
from edgefleet.agent.step import step
from edgefleet.agent.table import MOVES, PHASES, Signal, Stage, mermaid, next_stage
from edgefleet.base.errors import InternalError
from edgefleet.protocol.device import CheckInAnswer, Offer
from edgefleet.protocol.serving import ProveResult
from support.agent_world import FACTS, Device, manifest, manifest_sha256, offer, serving
from support.device_world import World


def states() -> dict[Stage, AgentState]:
    """A state of each stage, as a real update passes through it."""
    found: dict[Stage, AgentState] = {}

    def core(state: AgentState, event: Event, now: float) -> tuple[AgentState, tuple]:  # type: ignore[type-arg] - step's own type
        new, effects = step(state, event, now)
        if new.active or new.stage is Stage.IDLE:
            found.setdefault(new.stage, new)
        return new, effects

    world = World(core=core)
    for release in ("1", "2", "sick"):
        world.offer(release, rollout=f"ro-{release}-{len(found)}")
        if world.boots == 0:
            world.boot()
            world.start()
        wanted = release
        world.run(lambda world, wanted=wanted: wanted in world.finals() and not world.state.spool)  # type: ignore[misc] - the default binds the name
    assert set(found) == set(Stage)
    return found


STATES = states()


def events(state: AgentState) -> list[Event]:
    soft, attempt = state.soft, state.attempt
    work, switch = soft.work or 0, soft.switch or 0
    seq = soft.sent.seq if soft.sent else 0
    release = attempt.release if attempt else "2"

    def answered(what: Offer | None) -> CheckInAnswered:
        return CheckInAnswered(seq=seq, answer=CheckInAnswer(interval_s=60, offer=what), draw=0.5)

    found: list[Event] = [
        Booted(facts=FACTS, whole=("a", "b"), pointer=None, serving=None, draw=0.1),
        Booted(facts=FACTS, whole=(), pointer="a", serving=serving("1"), draw=0.1),
        Woke(draw=0.9),
        answered(None),
        answered(offer("2")),
        answered(offer("1", action="revert")),
        answered(offer("brick", action="revert")),
        CheckInFailed(seq=seq, code="unreachable", draw=0.5),
        CheckInFailed(seq=seq, code="checkin_replayed", next_seq=7, draw=0.5),
        ManifestOpened(job=work, sha256=manifest_sha256(release), manifest=manifest(release)),
        ManifestOpened(job=work, sha256=manifest_sha256("1"), manifest=manifest("1")),
        Fetched(job=work),
        Proved(job=work, result=ProveResult(passed=True)),
        Proved(job=work, result=ProveResult(passed=False, reason="golden_failed")),
        Activated(job=switch, status=serving(release)),
        ActivationFailed(job=switch, reason="load_failed", detail="", draw=0.5),
        ServingSeen(status=None, alive=False, draw=0.5),
        ServingSeen(status=None, alive=True, draw=0.5),
        ServingSeen(status=serving(release), alive=True, draw=0.5),
        ServingSeen(status=serving("other", pid=7), alive=True, draw=0.5),
    ]
    codes = ("disk_full", "unreachable", "digest_mismatch", "runtime_missing", "of_tomorrow")
    found += [WorkFailed(job=work, code=code, detail="", draw=0.5) for code in codes]
    return found


@pytest.mark.parametrize("stage", list(Stage))
def test_every_event_in_every_stage_is_answered_and_moves_as_the_table_says(stage: Stage) -> None:
    state = STATES[stage]
    reachable = closure(stage)
    for event in events(state):
        for later in (0.0, 1e6):
            new, effects = step(state, event, 2000.0 + later)
            assert new.stage in reachable, event
            assert (new.attempt is None) == (new.stage is Stage.IDLE), event
            assert type(effects[-1]).__name__ == "SetTimer", event


def closure(stage: Stage) -> set[Stage]:
    """Stages within two moves: an event may end one attempt and begin another."""
    once = {stage} | {target for (source, _), target in MOVES.items() if source is stage}
    return once | {target for (source, _), target in MOVES.items() if source in once}


def test_every_stage_is_reached_and_left_and_every_signal_used() -> None:
    sources, targets = {source for source, _ in MOVES}, set(MOVES.values())
    assert sources == targets == set(Stage) == set(PHASES)
    assert {signal for _, signal in MOVES} == set(Signal)


def test_a_pair_that_is_not_in_the_table_raises() -> None:
    with pytest.raises(InternalError, match="cannot be activated while idle"):
        next_stage(Stage.IDLE, Signal.ACTIVATED)


def test_the_diagram_has_a_line_for_each_move() -> None:
    drawn = mermaid().splitlines()
    assert drawn[0] == "stateDiagram-v2"
    assert len(drawn) == len(MOVES) + 2
    assert "    proving --> announcing: try" in drawn


def test_nothing_happens_before_the_device_has_booted() -> None:
    device = Device()
    device.hear(Woke(draw=0.5))
    assert device.kinds() == ()


def test_a_state_is_read_back_as_it_was_stored() -> None:
    for state in STATES.values():
        assert from_store(to_store(state)) == msgspec.structs.replace(state, soft=Soft())
