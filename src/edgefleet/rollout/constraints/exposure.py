"""The exposure limit: how many devices may be in trial at once. It grows with confirmations.

With the default, the limit is ten devices, and later the number of devices that have confirmed the
release, so the number of exposed devices doubles from round to round. The gate needs about 40
devices to reject a release that fails on one device in five (``sequential``). The limit stops such
a release near 40 devices, long before the end of a wave of thousands.
"""

import math
from typing import Final

from edgefleet.protocol.rollout import ExposureSpec, GateSpec
from edgefleet.rollout.evidence.sequential import exact_p_value, log_rate_evidence

SO_FAR: Final = "the limit grows as devices confirm the release"
_CEILING: Final = 0.05  # share of the fleet of which a handful is a tenth
_CHANCE: Final = 0.1
"""P-value at or below which overdue devices stop growth.

Waiting costs minutes and growth costs devices, so this is far weaker than a verdict. A release that
silences 2 % of its devices, with a limit of 1 %, stops growing at about a thousand devices. The
test ``log_rate_evidence > 0`` needs twice as many (``make bench-gate``)."""


def allowed(
    spec: ExposureSpec, *, healthy: int, in_trial: int, suspect: bool, missing: int = 0
) -> int:
    """How many devices may be in trial at once.

    ``healthy`` devices have confirmed the release. ``in_trial`` devices have activated it and not
    reported yet; ``missing`` of these are overdue. While the release is ``suspect`` the limit does
    not grow, but ``spec.first`` devices besides the missing ones may always be in trial: without
    new trials there would be no new evidence.
    """
    limit = trusted(spec, healthy)
    return min(limit, missing + max(spec.first, in_trial - missing)) if suspect else limit


def trusted(spec: ExposureSpec, healthy: int) -> int:
    """``allowed`` while the release is not suspect."""
    return max(spec.first, int(spec.growth * healthy))


def handful(spec: ExposureSpec, devices: int) -> int:
    """How many devices may be unfinished at once while a wave is open by handfuls.

    A tenth of the fleet in fleets of less than ``10 * first`` devices, so that a failure in a fleet
    of five is followed by one more device and not by all. ``devices`` is the size of the fleet.
    """
    return max(1, min(spec.first, math.ceil(devices / 10)), int(_CEILING * devices / 10))


def suspicious(spec: GateSpec, *, bad: int, size: int) -> bool:
    """True if ``bad`` of ``size`` finished devices are evidence against the release."""
    limit = spec.max_error_rate
    # The log evidence is never positive at a rate up to the limit, so the cheap test comes first.
    return bad > limit * size and log_rate_evidence(bad, size, limit) > 0


def missed(spec: GateSpec, *, missing: int, due: int) -> bool:
    """True if ``missing`` of ``due`` devices, which should have checked in, are too many."""
    return exact_p_value(missing, due, spec.max_silent_rate) <= _CHANCE
