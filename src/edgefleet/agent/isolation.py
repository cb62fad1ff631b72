"""Which models run in a worker because the shared process crashed while they ran.

One model that ran alone is to blame; at its second crash within an hour it moves into a worker. If
several ran, none is blamed, and each moves into a worker: the next crash has one name. If none
ran, such as when the memory of the device was exhausted, none is blamed.
"""

from collections.abc import Sequence

from edgefleet.agent import limits
from edgefleet.agent.state import Crashes


def record(crashes: Crashes, ran: Sequence[str], now: float) -> Crashes:
    """The crashes with one more, in which the models ``ran``."""
    if not ran:
        return crashes
    isolated = set(crashes.isolated)
    recent = {model: at for model, at in crashes.last if now - at < limits.CRASHES_WITHIN_S}
    if len(ran) > 1:
        isolated.update(ran)
    elif ran[0] in recent:
        isolated.add(ran[0])
    else:
        recent[ran[0]] = now
    return Crashes(last=tuple(recent.items()), isolated=tuple(sorted(isolated)))
