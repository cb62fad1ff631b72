import numpy as np
from msgspec.structs import replace

from edgefleet.agent.state import AgentState, Ended, ModelState, Slot, Soft
from edgefleet.sim.virtual.folded_state import FoldedStates, settled


def failed() -> dict[str, ModelState]:
    """Equal to the others, but a new object."""
    ended = (Ended(rollout="ro-1", manifest_sha256="2" * 64),)
    return {"digits": ModelState(ended=ended)}


def test_a_folded_state_comes_back_as_it_was_but_for_what_a_restart_may_forget() -> None:
    rows = FoldedStates(4)
    states = [
        AgentState(seq_reserved=1024, attempts=2, models=failed(), facts_known=True),
        AgentState(seq_reserved=2048, attempts=2, models=failed(), facts_known=True),
        AgentState(
            seq_reserved=1024, models={"digits": ModelState(a=Slot(proved=True))}, facts_known=True
        ),
    ]
    for row, state in enumerate(states):
        soft = Soft(booted=True, seq=row + 5, checkin_at=9.0)
        rows.fold(np.array([row]), replace(state, soft=soft))
    for row, state in enumerate(states):
        back = rows.unfold(np.array([row]), 60.0)
        assert back.soft == Soft(booted=True, seq=row + 5, checkin_at=60.0, known=())
        assert replace(back, soft=Soft()) == state
    first, second = (rows.unfold(np.array([row]), 60.0) for row in (0, 1))
    assert first.models is second.models  # states that differ only in numbers are kept once


def test_a_group_wakes_with_its_highest_numbers() -> None:
    rows = FoldedStates(3)
    for row, (seq, reserved) in enumerate(((9, 1024), (5, 2048), (7, 1024))):
        soft = Soft(booted=True, seq=seq, checkin_at=9.0)
        rows.fold(np.array([row]), AgentState(seq_reserved=reserved, facts_known=True, soft=soft))
    (group,) = rows.alike(np.arange(3), np.zeros(3, np.intp))
    state = rows.unfold(group, 60.0)
    assert state.soft.seq == 9, "a lower number would be refused as a replay"
    assert state.seq_reserved == 2048


def test_a_state_with_something_under_way_is_not_settled() -> None:
    soft = Soft(booted=True, checkin_at=60.0, known=())
    assert settled(AgentState(facts_known=True, soft=soft), 10.0)
    assert not settled(AgentState(facts_known=True, soft=soft), 60.0)
    unknown = replace(soft, known=None)
    assert not settled(AgentState(facts_known=True, soft=unknown), 10.0), "the hub asked for a list"
    assert not settled(AgentState(facts_known=False, soft=soft), 10.0)
