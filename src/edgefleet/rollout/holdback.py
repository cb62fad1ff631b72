"""The holdback: devices that get the release only when its bake ends, as control until then.

A device is in the holdback by its position, as it is in a wave by its position: the last wave of
everyone is cut before the devices of highest position.
"""

from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.rollout.fleet import cut
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.scope import Parts, Scope
from edgefleet.rollout.limits import HOLDBACK_DEVICES, HOLDBACK_FLEET


def holdback_size(spec: RolloutSpec, previous: str | None, population: int) -> int:
    """The number of devices to hold back. 0 in a small fleet or without a bake.

    A first release holds nothing back: a device without the model is no control.
    """
    is_on = spec.bake_s > 0 and spec.holdback_percent > 0 and previous is not None
    if not is_on or population < HOLDBACK_FLEET:
        return 0
    return max(HOLDBACK_DEVICES, cut.wanted(spec.holdback_percent, population))


def cut_before(scope: Scope, every: Rows, before: Parts, holdback: int) -> cut.Cut:
    """The cut of the last wave of everyone, without ``holdback`` devices.

    The devices are in no wave ``before``. If fewer are left, the holdback is smaller.
    """
    rest = every[~scope.all_inside(every, before)] if before else every
    if not holdback or not len(rest):
        return cut.Cut(len(every), cut.EVERYONE, len(every))
    threshold = cut.cut_at(scope.positions(rest), max(0, len(rest) - holdback)).threshold
    return cut.Cut(len(every) - min(holdback, len(rest)), threshold, len(every))
