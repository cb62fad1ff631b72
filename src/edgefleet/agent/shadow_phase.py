"""The shadow phase of an attempt: its begin, its probes, and its end.

The serving process holds the candidate beside the active release and answers a share of the live
requests with both (``protocol.serving.ServedShadow``). Callers get the answers of the active one
alone, so the phase needs no admission by the hub. It ends after its samples or its time, whatever
the serving process does; without evidence the trial goes on, and the start says so.
"""

from edgefleet.agent import shadow
from edgefleet.agent.activation import request_apply
from edgefleet.agent.before_trial import free_shadow, refuse
from edgefleet.agent.event import ServingProbed
from edgefleet.agent.state import Mark, ShadowWatch, active_release, slot
from edgefleet.agent.step_context import DeviceContext, StepContext
from edgefleet.agent.table import Signal, Stage
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.device import Reason
from edgefleet.protocol.serving import ServingStatus, model_status
from edgefleet.protocol.shadow import SHORT

_SHADOWING = Stage.SHADOWING


def is_due(context: StepContext) -> bool:
    """Whether the attempt needs a shadow phase before its start."""
    attempt = context.attempt
    if attempt.shadow is None or attempt.shadow_reason:
        return False
    return active_release(context.state) is not None


def begin(context: StepContext) -> None:
    """Begin the phase. Later, if the disk has a fault: a restart in it could not be counted."""
    if context.device.soft.disk_fault:
        return
    context.move(Signal.SHADOW)
    context.forgettable(shadow=ShadowWatch(since=context.now))
    request_apply(context.device)


def pause(context: StepContext) -> None:
    """End the phase in favour of a model in trial, or one that goes back. It begins anew later."""
    free_shadow(context)
    context.move(Signal.PAUSED)


def resume(context: StepContext) -> None:
    """After a restart: begin the phase anew, or refuse a release that may be the cause of it."""
    attempt = context.attempt
    breaks = attempt.shadow_breaks + 1
    context.change_attempt(shadow_breaks=breaks)
    if breaks < attempt.max_attempts:
        pause(context)
        return
    detail = f"The shadow phase was interrupted {breaks} times; {attempt.max_attempts} are allowed."
    refuse(context, Reason.INTERRUPTED, detail)


def on_serving_probed(device: DeviceContext, event: ServingProbed) -> None:
    """Judge each candidate in a shadow phase."""
    for name in [name for name, mine in device.models.items() if mine.stage is _SHADOWING]:
        _observe(device.model(name), event.status)


def _observe(context: StepContext, status: ServingStatus | None) -> None:
    attempt, watch = context.attempt, context.soft.shadow or ShadowWatch(since=context.now)
    installed = slot(context.state, attempt.slot).installed
    own = model_status(status, context.model)
    mine = None if own is None else own.shadow
    if status is not None and watch.start is not None and status.pid != watch.start.pid:
        _end(context, SHORT, "The shadow phase ended: the serving process was started again.")
        return
    if status is not None and own is not None and mine is not None and watch.start is None:
        start = Mark(pid=status.pid, model=context.model, release=own.release, stats=own.stats)
        watch = replace(watch, start=start if mine.ready else None)
    elif status is not None and own is not None and mine is None and _is_applied(context.device):
        _end(context, SHORT, "There was no shadow phase: the serving process has none.")
        return
    context.forgettable(shadow=watch)
    quality = None if installed is None else installed.quality
    match shadow.judge(attempt, quality, watch, own, context.now):
        case shadow.Bad(reason, detail):
            refuse(context, reason, detail)
        case shadow.Over(reason, text):
            _end(context, reason, text)
        case _:
            pass


def _is_applied(device: DeviceContext) -> bool:
    """Whether the serving process has been given the shadow: no Apply is due or on its way."""
    soft = device.soft
    return soft.switch is None and soft.switch_at is None and not device.is_apply_due


def _end(context: StepContext, reason: str, text: str) -> None:
    free_shadow(context)
    context.change_attempt(shadow_reason=reason, shadow_text=text)
    context.move(Signal.SHADOWED)
