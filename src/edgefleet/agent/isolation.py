"""Which models run in a worker because the shared process crashed or hung while they ran.

One model that ran alone is to blame; at its second crash within an hour it moves into a worker. A
model that hung moves at once. If several ran, none is blamed, and each moves into a worker: the
next crash has one name. If none ran, such as when the memory of the device was exhausted, none is
blamed. The facts of the device report the models with a worker to the hub.

The blame is that of a release: it ends when the model changes to another one.
"""

from collections.abc import Sequence

from edgefleet.agent import limits
from edgefleet.agent import telemetry as tally
from edgefleet.agent.state import Crashes, active_release
from edgefleet.agent.step_context import DeviceContext, StepContext
from edgefleet.agent.table import IN_TRIAL
from edgefleet.agent.typed_replace import replace
from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.protocol.device import Isolation, IsolationReason
from edgefleet.protocol.serving import ModelStatus, model_status


def on_process_ended(device: DeviceContext, ran: Sequence[str], *, hung: bool = False) -> None:
    """Blame the models that ``ran`` when the shared process ended, and report a new isolation.

    ``hung``: the agent ended the process, because it did not answer. A release that the device is
    leaving is not blamed: another one runs next.
    """
    for model in ran:
        _count_failed(device, model)
    blamed = [model for model in ran if not _is_left(device, model)]
    _set(device, record(device.soft.crashes, blamed, device.now, hung=hung))


def on_hung(device: DeviceContext, own: ModelStatus) -> None:
    """Blame the model: a request to its release does not end in the shared process."""
    _count_failed(device, own.model)
    _set(device, record(device.soft.crashes, (own.model,), device.now, hung=True))


def forget(context: StepContext) -> None:
    """Another release of the model runs from now on, in the shared process."""
    crashes = context.device.soft.crashes
    last = tuple(one for one in crashes.last if one[0] != context.model)
    isolated = tuple(one for one in crashes.isolated if one.model != context.model)
    _set(context.device, Crashes(last=last, isolated=isolated))


def is_isolated(device: DeviceContext, model: str) -> bool:
    return any(one.model == model for one in device.soft.crashes.isolated)


def record(crashes: Crashes, ran: Sequence[str], now: float, *, hung: bool = False) -> Crashes:
    """The crashes with one more, in which the models ``ran``."""
    if not ran:
        return crashes
    isolated = {one.model: one for one in crashes.isolated}
    recent = {model: at for model, at in crashes.last if now - at < limits.CRASHES_WITHIN_S}
    reason = IsolationReason.CRASHED_TWICE
    if len(ran) > 1:
        reason = IsolationReason.RAN_IN_CRASH
    elif hung:
        reason = IsolationReason.HUNG
    if len(ran) > 1 or hung or ran[0] in recent:
        for model in ran:
            isolated.setdefault(model, Isolation(model=model, reason=reason))
    else:
        recent[ran[0]] = now
    by_name = sorted(isolated.values(), key=lambda one: one.model)
    return Crashes(last=tuple(recent.items()), isolated=tuple(by_name[:MODELS_PER_DEVICE]))


def _set(device: DeviceContext, crashes: Crashes) -> None:
    before, facts = device.soft.crashes, device.state.facts
    if crashes == before:
        return
    device.forgettable(crashes=crashes)
    if crashes.isolated != before.isolated and facts is not None:
        device.keep(facts=replace(facts, isolated=crashes.isolated), facts_known=False)
        device.forgettable(checkin_at=device.now)


def _is_left(device: DeviceContext, model: str) -> bool:
    """Whether the device takes back the release that ran: it goes back on the hub's order."""
    state = device.models.get(model)
    attempt = None if state is None else state.attempt
    return (
        state is not None
        and attempt is not None
        and attempt.action == "revert"
        and state.stage in IN_TRIAL
    )


def _count_failed(device: DeviceContext, model: str) -> None:
    """Count the requests that got no answer as errors of the release that ran, for the hub."""
    state = device.models.get(model)
    own = model_status(device.soft.serving, model)
    installed = None if state is None else active_release(state)
    if installed is None:
        return
    context = device.model(model)
    failed = 1 if own is None or own.release != installed.release else max(1, own.stats.in_flight)
    tallies = tally.add_failed(context.soft.tallies, installed.release, failed)
    context.forgettable(tallies=tallies)
