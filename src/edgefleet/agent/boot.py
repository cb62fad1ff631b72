"""Recovery after a start: from the stored state and the findings to a consistent state.

The agent and the serving process may have died between any two writes. Idempotent work of the state
is requested again. An interrupted trial is repeated or ends as failed.
"""

from typing import Final

from edgefleet.agent import limits, shadow_phase
from edgefleet.agent.activation import go_back, request_apply, return_to_active, serves
from edgefleet.agent.before_trial import cancel, free_shadow, hush, report_start
from edgefleet.agent.effect import MovePointer
from edgefleet.agent.event import Booted
from edgefleet.agent.state import Slot, SlotName, Soft, active_release, other, pointer, slot
from edgefleet.agent.step_context import DeviceContext, StepContext
from edgefleet.agent.table import BEFORE_TRIAL, IN_TRIAL, Signal, Stage
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.device import Reason

_NEED_SLOT: Final = (Stage.PROVING, Stage.STAGED, Stage.SHADOWING, Stage.ANNOUNCING)


def on_booted(device: DeviceContext, event: Booted) -> None:
    state = device.state
    spread_s = min(state.interval_s, limits.BOOT_SPREAD_S)
    facts = replace(event.facts, disk_fault=event.disk_fault)
    device.keep(
        facts=facts,
        facts_known=state.facts_known and state.facts == facts,
        pace=event.pace,
    )
    device.soft_models = {}
    device.soft = Soft(
        booted=True,
        seq=state.seq_reserved,
        serving=event.serving,
        disk_fault=event.disk_fault,
        checkin_at=device.now + event.draw * spread_s,
    )
    for name in tuple(device.models):
        _recover(device.model(name), event)
    slots = pointer(device.models)
    if event.pointer != slots:
        device.do(MovePointer(slots=slots))


def _recover(context: StepContext, event: Booted) -> None:
    """Bring one model into a consistent state, and serve it."""
    _drop_damaged(context, event.whole.get(context.model, ()))
    if context.state.stage in BEFORE_TRIAL:
        _resume_work(context)
    elif context.state.stage in IN_TRIAL:
        resume_trial(context)
    elif context.state.stage is Stage.REVERTING:
        return_to_active(context)
    installed = active_release(context.state)
    if installed is not None and not serves(event.serving, installed):
        request_apply(context.device)


def _drop_damaged(context: StepContext, whole: tuple[SlotName, ...]) -> None:
    """Forget damaged slots. A confirmed slot replaces a damaged active one."""
    names: tuple[SlotName, ...] = ("a", "b")
    for name in names:
        if slot(context.state, name).installed is not None and name not in whole:
            context.set_slot(name, Slot(leftover=True))
    active = context.state.active
    if active is None or slot(context.state, active).installed is not None:
        return
    spare = other(active)
    usable = slot(context.state, spare).confirmed and context.state.stage not in IN_TRIAL
    context.keep(active=spare if usable else None)
    if usable and context.state.stage in BEFORE_TRIAL:
        cancel(context)


def _resume_work(context: StepContext) -> None:
    """Check the slot of an attempt. The arbiter requests its work again."""
    is_whole = slot(context.state, context.attempt.slot).installed is not None
    stage = context.state.stage
    if stage is Stage.ANNOUNCING and is_whole:
        report_start(context)
    elif stage is Stage.SHADOWING and is_whole:
        shadow_phase.resume(context)
    elif stage in _NEED_SLOT and not is_whole:
        hush(context)
        free_shadow(context)
        context.move(Signal.DAMAGED)


def resume_trial(context: StepContext) -> None:
    """Repeat an interrupted trial, or end it as failed."""
    attempt = context.attempt
    if slot(context.state, attempt.slot).installed is None:
        go_back(context, Reason.DIGEST, "The slot in trial is damaged after a power loss.")
    elif context.device.soft.disk_fault:  # the attempt counter cannot be stored
        context.forgettable(waits_for_disk=True)
        request_apply(context.device)
    elif attempt.tries >= attempt.max_attempts:
        go_back(
            context,
            Reason.INTERRUPTED,
            f"The trial was interrupted {attempt.tries} times; {attempt.max_attempts} are allowed.",
        )
    else:
        context.move(Signal.INTERRUPTED)
        context.change_attempt(tries=attempt.tries + 1)
        request_apply(context.device)
