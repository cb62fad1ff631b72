"""A gate of our own: the usual one, but two crashed serving processes are two too many."""

from edgefleet.protocol.rollout import EValue, Evidence, GateSpec, Judgement, Verdict
from edgefleet.rollout.evidence.gate import judge
from edgefleet.rollout.evidence.sequential import log_rate_evidence


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


def few_crashes(evidence: Evidence, *_: object, **_given: object) -> EValue:
    """One more test beside those of the usual gate: at most 0.5 % of devices may crash."""
    crashes = evidence.reasons.get("serving_crashed", 0)
    size = evidence.errors.size
    return EValue(
        log_e_value=log_rate_evidence(crashes, size, 0.005),
        reason="crashes",
        text=f"The serving process crashed on {crashes} of {size} devices; 0.5 % is allowed.",
    )
