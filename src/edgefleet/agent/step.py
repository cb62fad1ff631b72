"""The agent's step function: from an event to a new state and effects."""

from typing import assert_never

from edgefleet.agent import (
    activation,
    before_trial,
    boot,
    checkin,
    disk,
    labels,
    shadow_phase,
    units,
)
from edgefleet.agent.effect import Effect, SetTimer
from edgefleet.agent.event import (
    Activated,
    ActivationFailed,
    Booted,
    CheckInAnswered,
    CheckInFailed,
    DiskChecked,
    Event,
    Fetched,
    ManifestOpened,
    Proved,
    ServingProbed,
    StagingFailed,
    TimerFired,
    TruthGiven,
)
from edgefleet.agent.state import AgentState
from edgefleet.agent.step_context import DeviceContext

NEVER_S = 3600.0  # the longest sleep


def step(state: AgentState, event: Event, now: float) -> tuple[AgentState, tuple[Effect, ...]]:
    """The state after ``event``, and the effects to execute in order after saving ``to_store``.

    ``now`` is in seconds and must not decrease between two boots. The last effect is always
    SetTimer. Events before the first Booted have no effect.
    """
    device = DeviceContext(state, now)
    if state.soft.booted or isinstance(event, Booted):
        _dispatch(device, event)
        units.arbitrate(device)
        activation.apply_wanted(device)
        activation.plan_probe(device)
        checkin.check_in_when_due(device)
    state = device.end()
    device.do(SetTimer(at=wake_at(state, now)))
    return state, tuple(device.effects)


def wake_at(state: AgentState, now: float) -> float:
    """The time at which the core needs its next TimerFired."""
    soft, at = state.soft, now + NEVER_S
    if soft.sent is None:
        at = min(at, max(soft.checkin_at, soft.hub_busy_until))
    for due in (soft.switch_at, soft.probe_at):
        if due is not None and due < at:
            at = due
    for model in soft.models.values():
        if model.work_at is not None and model.work_at < at:
            at = model.work_at
    return at


def _dispatch(device: DeviceContext, event: Event) -> None:
    match event:
        case Booted():
            boot.on_booted(device, event)
        case TimerFired():
            before_trial.on_timer_fired(device)
            activation.on_timer_fired(device)
        case CheckInAnswered():
            if sent := checkin.apply_answer(device, event):
                before_trial.apply_answer(device, sent, event.answer)
        case CheckInFailed():
            checkin.apply_failure(device, event)
        case ManifestOpened():
            before_trial.on_manifest_opened(device.model(event.model), event)
        case Fetched():
            before_trial.on_fetched(device.model(event.model), event)
        case StagingFailed():
            before_trial.on_staging_failed(device.model(event.model), event)
        case Proved():
            before_trial.on_proved(device.model(event.model), event)
        case Activated():
            activation.on_activated(device, event)
        case ActivationFailed():
            activation.on_activation_failed(device, event)
        case ServingProbed():
            activation.on_serving_probed(device, event)
            shadow_phase.on_serving_probed(device, event)
        case TruthGiven():
            labels.on_truth_given(device, event)
        case DiskChecked():
            disk.on_disk_checked(device, event)
        case _:
            assert_never(event)
