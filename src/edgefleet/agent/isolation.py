"""Which models run in a worker because the shared process crashed while they ran.

One model that ran alone is to blame; at its second crash within an hour it moves into a worker. If
several ran, none is blamed, and each moves into a worker: the next crash has one name. If none
ran, such as when the memory of the device was exhausted, none is blamed. The facts of the device
report the models with a worker to the hub.
"""

from collections.abc import Sequence

from edgefleet.agent import limits
from edgefleet.agent.state import Crashes
from edgefleet.agent.step_context import DeviceContext
from edgefleet.agent.typed_replace import replace
from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.protocol.device import Isolation, IsolationReason


def on_process_ended(device: DeviceContext, ran: Sequence[str]) -> None:
    """Blame the models that ``ran`` when the shared process ended, and report a new isolation."""
    before = device.soft.crashes
    crashes = record(before, ran, device.now)
    device.forgettable(crashes=crashes)
    facts = device.state.facts
    if crashes.isolated != before.isolated and facts is not None:
        device.keep(facts=replace(facts, isolated=crashes.isolated), facts_known=False)
        device.forgettable(checkin_at=device.now)


def record(crashes: Crashes, ran: Sequence[str], now: float) -> Crashes:
    """The crashes with one more, in which the models ``ran``."""
    if not ran:
        return crashes
    isolated = {one.model: one for one in crashes.isolated}
    recent = {model: at for model, at in crashes.last if now - at < limits.CRASHES_WITHIN_S}
    reason = IsolationReason.RAN_IN_CRASH if len(ran) > 1 else IsolationReason.CRASHED_TWICE
    if len(ran) > 1 or ran[0] in recent:
        for model in ran:
            isolated.setdefault(model, Isolation(model=model, reason=reason))
    else:
        recent[ran[0]] = now
    by_name = sorted(isolated.values(), key=lambda one: one.model)
    return Crashes(last=tuple(recent.items()), isolated=tuple(by_name[:MODELS_PER_DEVICE]))
