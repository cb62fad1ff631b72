"""The exposure limit: how many devices may be in trial at once. It grows with confirmations.

With the default, the limit is ten devices, and later the number of devices that have confirmed the
release, so the number of exposed devices doubles from round to round, up to a ceiling of 5 % of the
fleet. The gate needs about 40 devices to reject a release that fails on one device in five
(``sequential``). The limit stops such a release near 40 devices, long before the end of a wave of
thousands. The ceiling bounds the devices that a failure can reach that begins later.
"""

import math
from typing import Final

from edgefleet.protocol.rollout import ExposureSpec, GateSpec
from edgefleet.rollout.evidence.sequential import exact_p_value, log_rate_evidence

SO_FAR: Final = "the limit grows as devices confirm the release"
SUSPECT: Final = "the limit does not grow while more devices fail than allowed"
LATE: Final = "the limit does not grow while more of the last devices fail than allowed"
NO_MORE: Final = "no more devices may start, because the last devices that started fail"
_CHANCE: Final = 0.1
"""P-value at or below which overdue devices stop growth.

Waiting costs minutes and growth costs devices, so this is far weaker than a verdict. A release that
silences 2 % of its devices, with a limit of 1 %, stops growing at about a thousand devices. The
test ``log_rate_evidence > 0`` needs twice as many (``make bench-gate``)."""


def ceiling(spec: ExposureSpec, devices: int) -> int:
    """The most devices of a fleet of ``devices`` that may ever be in trial at once."""
    return max(spec.first, int(spec.ceiling * devices))


def allowed(
    spec: ExposureSpec, *, trusted: int, in_trial: int, suspect: bool, missing: int = 0
) -> int:
    """How many devices may be in trial at once.

    ``in_trial`` devices have activated the release and not reported yet; ``missing`` of these are
    overdue. While the release is ``suspect`` the limit does not grow, but ``spec.first`` devices
    besides the missing ones may always be in trial: without new trials there would be no new
    evidence.
    """
    return min(trusted, missing + max(spec.first, in_trial - missing)) if suspect else trusted


def trusted(spec: ExposureSpec, *, healthy: int, devices: int) -> int:
    """The limit while the release is not suspect.

    ``healthy`` devices of the fleet of ``devices`` have confirmed the release, since the last pause
    in which no device started.
    """
    return min(ceiling(spec, devices), max(spec.first, int(spec.growth * healthy)))


def ceiling_reason(spec: ExposureSpec, devices: int) -> str:
    """The reason for a limit at the ceiling, as the end of a sentence."""
    return f"the limit is at its ceiling, {100 * spec.ceiling:g} % of {devices} devices"


def handful(spec: ExposureSpec, devices: int) -> int:
    """How many devices may be unfinished at once while a wave is open by handfuls.

    A tenth of the fleet in fleets of less than ``10 * first`` devices, so that a failure in a fleet
    of five is followed by one more device and not by all. ``devices`` is the size of the fleet.
    """
    few = min(spec.first, math.ceil(devices / 10))
    return max(1, few, ceiling(spec, devices) // 10)


def suspicious(limit: float, *, bad: int, size: int) -> bool:
    """True if ``bad`` of ``size`` finished devices are evidence for a rate above ``limit``."""
    # The log evidence is never positive at a rate up to the limit, so the cheap test comes first.
    return bad > limit * size and log_rate_evidence(bad, size, limit) > 0


def missed(spec: GateSpec, *, missing: int, due: int) -> bool:
    """True if ``missing`` of ``due`` devices, which should have checked in, are too many."""
    return exact_p_value(missing, due, spec.max_silent_rate) <= _CHANCE
