"""The agent's brain: one event in, a new state and the effects to do out."""

from typing import assert_never

from edgefleet.agent import attempt, boot, report, switch
from edgefleet.agent.effect import Effect, SetTimer
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
from edgefleet.agent.state import AgentState
from edgefleet.agent.step_context import Turn

NEVER_S = 3600.0  # wake at least this often


def step(state: AgentState, event: Event, now: float) -> tuple[AgentState, tuple[Effect, ...]]:
    """What ``event`` changes. Save ``to_store`` of the new state, then do the effects in order.

    ``now`` is in seconds and must not run backwards between two boots. The last effect is always
    SetTimer. Before the first Booted every other event is left alone.
    """
    turn = Turn(state, now)
    if state.soft.booted or isinstance(event, Booted):
        _dispatch(turn, event)
        switch.plan_probe(turn)
        report.check_in_when_due(turn)
    state = turn.end()
    turn.do(SetTimer(at=wake_at(state, now)))
    return state, tuple(turn.effects)


def wake_at(state: AgentState, now: float) -> float:
    """When the core has to look again, if nothing happens before."""
    soft, at = state.soft, now + NEVER_S
    if soft.sent is None:
        at = min(at, soft.checkin_at)
    for due in (soft.work_at, soft.switch_at, soft.probe_at):
        if due is not None and due < at:
            at = due
    return at


def _dispatch(turn: Turn, event: Event) -> None:
    match event:
        case Booted():
            boot.on_booted(turn, event)
        case Woke():
            attempt.on_woke(turn)
            switch.on_woke(turn)
        case CheckInAnswered():
            if sent := report.take_answer(turn, event):
                attempt.take_answer(turn, sent, event.answer)
        case CheckInFailed():
            report.take_failure(turn, event)
        case ManifestOpened():
            attempt.on_manifest_opened(turn, event)
        case Fetched():
            attempt.on_fetched(turn, event)
        case WorkFailed():
            attempt.on_work_failed(turn, event)
        case Proved():
            attempt.on_proved(turn, event)
        case Activated():
            switch.on_activated(turn, event)
        case ActivationFailed():
            switch.on_activation_failed(turn, event)
        case ServingSeen():
            switch.on_serving_seen(turn, event)
        case _:
            assert_never(event)
