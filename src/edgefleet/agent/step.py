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
    ServingProbed,
    StagingFailed,
    TimerFired,
)
from edgefleet.agent.state import AgentState
from edgefleet.agent.step_context import StepContext

NEVER_S = 3600.0  # wake at least this often


def step(state: AgentState, event: Event, now: float) -> tuple[AgentState, tuple[Effect, ...]]:
    """What ``event`` changes. Save ``to_store`` of the new state, then do the effects in order.

    ``now`` is in seconds and must not run backwards between two boots. The last effect is always
    SetTimer. Before the first Booted every other event is left alone.
    """
    context = StepContext(state, now)
    if state.soft.booted or isinstance(event, Booted):
        _dispatch(context, event)
        switch.plan_probe(context)
        report.check_in_when_due(context)
    state = context.end()
    context.do(SetTimer(at=wake_at(state, now)))
    return state, tuple(context.effects)


def wake_at(state: AgentState, now: float) -> float:
    """When the core has to look again, if nothing happens before."""
    soft, at = state.soft, now + NEVER_S
    if soft.sent is None:
        at = min(at, soft.checkin_at)
    for due in (soft.work_at, soft.switch_at, soft.probe_at):
        if due is not None and due < at:
            at = due
    return at


def _dispatch(context: StepContext, event: Event) -> None:
    match event:
        case Booted():
            boot.on_booted(context, event)
        case TimerFired():
            attempt.on_timer_fired(context)
            switch.on_timer_fired(context)
        case CheckInAnswered():
            if sent := report.take_answer(context, event):
                attempt.take_answer(context, sent, event.answer)
        case CheckInFailed():
            report.take_failure(context, event)
        case ManifestOpened():
            attempt.on_manifest_opened(context, event)
        case Fetched():
            attempt.on_fetched(context, event)
        case StagingFailed():
            attempt.on_staging_failed(context, event)
        case Proved():
            attempt.on_proved(context, event)
        case Activated():
            switch.on_activated(context, event)
        case ActivationFailed():
            switch.on_activation_failed(context, event)
        case ServingProbed():
            switch.on_serving_probed(context, event)
        case _:
            assert_never(event)
