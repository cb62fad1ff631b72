"""A gate of our own: the usual one, but two crashed serving processes are two too many."""

from edgefleet.protocol.rollout import Evidence, GateSpec, Judgement, Verdict
from edgefleet.rollout.evidence.gate import judge


def no_second_crash(
    evidence: Evidence,
    spec: GateSpec,
    *,
    opened_at: float,
    before: Judgement | None,
    now: float,
) -> Judgement:
    """Take a release back at its second crash, however many devices are well."""
    crashes = evidence.reasons.get("serving_crashed", 0)
    if crashes >= 2:
        return Judgement(
            verdict=Verdict.FAIL,
            reason="crashes",
            text=f"The serving process crashed on {crashes} devices; one is allowed.",
            at=now,
            evidence=evidence,
        )
    return judge(evidence, spec, opened_at=opened_at, before=before, now=now)
