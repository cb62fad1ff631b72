"""How many devices may hold an unconfirmed release at once: more, the more have confirmed it.

With the default, ten at first and as many as have confirmed it after that, the number of those that
hold it doubles from round to round. It takes some 40 devices to be sure of a release that fails on
one in five (``sequential``), so it ends there and not at the end of a wave of thousands.
"""

from typing import Final

from edgefleet.protocol.rollout import ExposureSpec, GateSpec
from edgefleet.rollout.evidence.sequential import exact_p_value, log_rate_evidence

SO_FAR: Final = "as many as the evidence so far allows"
_CHANCE: Final = 0.1
"""So seldom as many are missing at the limit by chance. To wait costs minutes and to grow costs
devices, so this is far from a verdict; at 2 % against a limit of 1 % it stops growth at some
thousand devices, where log evidence above 0 takes twice as many (``make bench-gate``)."""


def allowed(
    spec: ExposureSpec, *, healthy: int, in_trial: int, suspect: bool, missing: int = 0
) -> int:
    """How many devices may be in trial at once.

    ``healthy`` have confirmed it; ``in_trial`` activated it and said nothing yet, those that are
    ``missing`` among them. While the evidence leans against the release nothing grows, and it goes
    on by first handfuls beside the missing: nothing is learnt from standing still.
    """
    limit = trusted(spec, healthy)
    return min(limit, missing + max(spec.first, in_trial - missing)) if suspect else limit


def trusted(spec: ExposureSpec, healthy: int) -> int:
    """``allowed`` while nothing speaks against the release."""
    return max(spec.first, int(spec.growth * healthy))


def suspicious(spec: GateSpec, *, bad: int, size: int) -> bool:
    """True while ``bad`` of ``size`` finished devices speak against the release."""
    limit = spec.max_error_rate
    return bad > limit * size and log_rate_evidence(bad, size, limit) > 0  # below it never is


def missed(spec: GateSpec, *, missing: int, due: int) -> bool:
    """True while ``missing`` of ``due`` devices, that should have been heard, are too many."""
    return exact_p_value(missing, due, spec.max_silent_rate) <= _CHANCE
