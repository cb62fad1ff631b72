"""How many devices may hold an unconfirmed release at once: more, the more have confirmed it.

With the default, ten at first and as many as have confirmed it after that, the number of those that
hold it doubles from round to round. It takes some 40 devices to be sure of a release that fails on
one in five (``sequential``), so it ends there and not at the end of a wave of thousands.
"""

from edgefleet.protocol.rollout import ExposureSpec, GateSpec
from edgefleet.rollout.sequential import log_rate_evidence


def allowed(spec: ExposureSpec, *, healthy: int, in_trial: int, suspect: bool) -> int:
    """How many devices may be in trial at once.

    ``healthy`` have confirmed it; ``in_trial`` activated it and said nothing yet, silent ones among
    them. While the evidence leans against the release nothing grows, and it goes on by first
    handfuls: nothing is learnt from standing still.
    """
    limit = max(spec.first, int(spec.growth * healthy))
    return min(limit, max(spec.first, in_trial)) if suspect else limit


def suspicious(spec: GateSpec, *, bad: int, size: int) -> bool:
    """True while ``bad`` of ``size`` finished devices speak against the release."""
    limit = spec.max_error_rate
    return bad > limit * size and log_rate_evidence(bad, size, limit) > 0  # below it never is
