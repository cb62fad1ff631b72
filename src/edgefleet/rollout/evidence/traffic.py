"""Requests of clients to the release: whether they arrive, and what is unknown without them.

A release that nobody asks fails nothing. So a wave does not pass while clients reach the control
and not the canary, nor while the plan demands requests that have not come. Both are no verdict on
the release: requests that arrive later end the wait. ``silent_clients`` in the table of metrics is
the test that fails a release which clients leave on many devices.
"""

import math
from typing import Final

from edgefleet.base.texts import counted
from edgefleet.protocol.metrics import CHANGES, NEAR_ZERO
from edgefleet.protocol.rollout import Cohort, Evidence, GateSpec

NO_REQUESTS: Final = "no_requests"
"""The reason of a judgement, and the code of a wait."""

CHANCE: Final = 0.01
"""Clients may ask few devices. A wave without one of these is chance with at least this chance."""

_DECIDE: Final = "Then run `edgefleet rollout advance` or `edgefleet rollout revert`."


def missing(evidence: Evidence, spec: GateSpec) -> str:
    """Why the wave must not pass yet for want of requests. Empty if it may."""
    canary = evidence.canary
    if spec.require_traffic and canary.requests < spec.min_requests:
        return (
            f"The plan demands {counted(spec.min_requests, 'request')} to the release before a "
            f"wave passes; it has served {canary.requests}. Wait for clients, or decide without "
            "them: `edgefleet rollout advance` or `edgefleet rollout revert`."
        )
    if canary.requests >= spec.min_requests:
        return ""
    expected = _expected(evidence)
    few = expected >= spec.min_requests and canary.requests <= (1 - NEAR_ZERO) * expected
    if few and _chance_of_none(evidence) <= CHANCE:
        return (
            f"Clients do not reach the release: its {counted(evidence.healthy, 'device')} served "
            f"{counted(canary.requests, 'request')}, at the rate of the control they would have "
            f"served about {round(expected)}. Find out why these devices get no requests. {_DECIDE}"
        )
    if _were_left(canary) and evidence.control.rated and not _were_left(evidence.control):
        return (
            f"Clients have left the release: nearly no requests arrive on {canary.left} of "
            f"{counted(canary.rated, 'device')} that were asked before the switch. Find out why. "
            f"{_DECIDE}"
        )
    return ""


def unjudged(evidence: Evidence, spec: GateSpec) -> str:
    """The gap in the knowledge of the quality, as a sentence. Empty if live requests were compared.

    Golden accuracy and the figures of other models say nothing about live requests.
    """
    canary, control = evidence.canary, evidence.control
    if not canary.requests and canary.refused:
        return (
            f"Live quality unjudged: the release refused all {counted(canary.refused, 'request')}."
        )
    if not canary.requests:
        return "Live quality unjudged: the release served no requests."
    compared = {metric.key for metric in CHANGES if metric.needs_requests}
    if any(found.metric in compared for found in evidence.quality):
        if min(canary.requests, control.requests) >= spec.min_requests:
            return ""
        return (
            f"Live quality unjudged: it is judged from {counted(spec.min_requests, 'request')} on, "
            "beside a control."
        )
    if evidence.limits.devices:
        return "Live quality was compared with the limits of the plan, not with a control."
    return "Live quality unjudged: its requests were too few."


def _expected(evidence: Evidence) -> float:
    """The requests that the confirmed devices would have served at the rate of the control."""
    others = _others(evidence)
    return evidence.control.requests * evidence.healthy / others if others else 0.0


def _chance_of_none(evidence: Evidence) -> float:
    """The chance that clients ask none of the confirmed devices, whatever the release.

    As many devices as clients ask now are then drawn from all devices (hypergeometric).
    """
    asked, canaries = evidence.control.devices, evidence.healthy
    everyone = canaries + _others(evidence)
    idle = everyone - asked
    if canaries > idle:
        return 0.0
    log_ways = math.lgamma(idle + 1) - math.lgamma(idle - canaries + 1)
    return math.exp(log_ways - math.lgamma(everyone + 1) + math.lgamma(everyone - canaries + 1))


def _others(evidence: Evidence) -> int:
    """The number of devices without the release."""
    not_begun = evidence.cut + evidence.remaining - evidence.exposed
    return max(evidence.control.devices, not_begun)


def _were_left(side: Cohort) -> bool:
    return 0 < side.rated <= 2 * side.left
