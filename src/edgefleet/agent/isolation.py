"""Which models run in a worker because the shared process crashed while they ran.

One model that ran alone is to blame; at its second crash within an hour it moves into a worker. If
several ran, none is blamed, and each moves into a worker: the next crash has one name. If none
ran, such as when the memory of the device was exhausted, none is blamed.
"""

from collections.abc import Sequence

from edgefleet.agent import limits
from edgefleet.agent.state import Crashes
from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.protocol.device import Isolation, IsolationReason


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
