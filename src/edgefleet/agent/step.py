"""The agent's step function: from an event to a new state and effects."""

from typing import assert_never

from edgefleet.agent import activation, before_trial, boot, checkin
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

NEVER_S = 3600.0  # the longest sleep


def step(state: AgentState, event: Event, now: float) -> tuple[AgentState, tuple[Effect, ...]]:
    """The state after ``event``, and the effects to execute in order after saving ``to_store``.

    ``now`` is in seconds and must not decrease between two boots. The last effect is always
    SetTimer. Events before the first Booted have no effect.
    """
    context = StepContext(state, now)
    if state.soft.booted or isinstance(event, Booted):
        _dispatch(context, event)
        activation.plan_probe(context)
        checkin.check_in_when_due(context)
    state = context.end()
    context.do(SetTimer(at=wake_at(state, now)))
    return state, tuple(context.effects)


def wake_at(state: AgentState, now: float) -> float:
    """The time at which the core needs its next TimerFired."""
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
            before_trial.on_timer_fired(context)
            activation.on_timer_fired(context)
        case CheckInAnswered():
            if sent := checkin.apply_answer(context, event):
                before_trial.apply_answer(context, sent, event.answer)
        case CheckInFailed():
            checkin.apply_failure(context, event)
        case ManifestOpened():
            before_trial.on_manifest_opened(context, event)
        case Fetched():
            before_trial.on_fetched(context, event)
        case StagingFailed():
            before_trial.on_staging_failed(context, event)
        case Proved():
            before_trial.on_proved(context, event)
        case Activated():
            activation.on_activated(context, event)
        case ActivationFailed():
            activation.on_activation_failed(context, event)
        case ServingProbed():
            activation.on_serving_probed(context, event)
        case _:
            assert_never(event)
