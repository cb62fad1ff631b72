"""How many devices may hold an unconfirmed release at once: more, the more have confirmed it."""

from edgefleet.protocol.rollout import ExposureSpec, GateSpec


def allowed(spec: ExposureSpec, *, healthy: int, in_trial: int, suspect: bool) -> int:
    """How many devices may be in trial at once.

    ``healthy`` have confirmed it, ``in_trial`` activated it and said nothing yet, silent ones
    among them. While failures are suspicious nothing grows.
    """
    limit = max(spec.first, int(spec.growth * healthy))
    return min(limit, max(spec.first, in_trial)) if suspect else limit


def suspicious(spec: GateSpec, *, bad: int, size: int) -> bool:
    """True while ``bad`` of ``size`` finished devices speak against the release."""
    return bad > spec.max_error_rate * size
