"""The table handles every event in every stage that the core can reach."""

import msgspec
import pytest

from edgefleet.agent.event import TimerFired
from edgefleet.agent.state import ModelState, Soft
from edgefleet.agent.step import step
from edgefleet.agent.stored import from_store, to_store
from edgefleet.agent.table import MOVES, PHASES, Signal, Stage, mermaid, next_stage
from edgefleet.base.errors import InternalError, OperatorError
from support.agent_world import Device, any_event
from support.device_world import state_of_each_stage

STATES = state_of_each_stage()


@pytest.mark.parametrize("stage", list(Stage))
def test_every_event_in_every_stage_is_answered_and_moves_as_the_table_says(stage: Stage) -> None:
    state = STATES[stage]
    reachable = closure(stage)
    for event in any_event(state):
        for later in (0.0, 1e6):
            new, effects = step(state, event, 2000.0 + later)
            mine = new.models.get("digits", ModelState())
            assert mine.stage in reachable, event
            assert (mine.attempt is None) == (mine.stage is Stage.IDLE), event
            assert type(effects[-1]).__name__ == "SetTimer", event


def closure(stage: Stage) -> set[Stage]:
    """Stages within three moves: an event may end one attempt, begin another and give it the link."""
    found = {stage}
    for _ in range(3):
        found |= {target for (source, _), target in MOVES.items() if source in found}
    return found


def test_every_stage_is_reached_and_left_and_every_signal_used() -> None:
    sources, targets = {source for source, _ in MOVES}, set(MOVES.values())
    assert sources == targets == set(Stage) == set(PHASES)
    assert {signal for _, signal in MOVES} == set(Signal)


def test_a_pair_that_is_not_in_the_table_raises() -> None:
    with pytest.raises(InternalError, match="activated is not allowed in stage idle"):
        next_stage(Stage.IDLE, Signal.ACTIVATED)


def test_the_diagram_has_a_line_for_each_move() -> None:
    drawn = mermaid().splitlines()
    assert drawn[0] == "stateDiagram-v2"
    assert len(drawn) == len(MOVES) + 2
    assert "    proving --> staged: try" in drawn


def test_nothing_happens_before_the_device_has_booted() -> None:
    device = Device()
    device.hear(TimerFired(draw=0.5))
    assert device.kinds() == ()


def test_a_state_of_another_version_is_refused_with_what_to_do() -> None:
    new = to_store(STATES[Stage.IDLE]).replace(b'"version":3', b'"version":4')
    with pytest.raises(OperatorError, match="version 4; this agent reads version 3") as caught:
        from_store(new)
    assert caught.value.code == "store_foreign"
    assert "move state.json out" in caught.value.hint


def test_a_state_is_read_back_as_it_was_stored() -> None:
    for state in STATES.values():
        assert from_store(to_store(state)) == msgspec.structs.replace(state, soft=Soft())
