"""The waits that say what the previous releases did: above a limit, or failing anyway.

They block nothing. They say which limits cannot fail the release, and which options change that.
"""

from edgefleet.protocol.metric_bounds import Bound
from edgefleet.protocol.metric_kinds import LimitMetric
from edgefleet.protocol.metrics import LIMITS
from edgefleet.protocol.rollout import Cohort, Evidence
from edgefleet.protocol.why import Wait, WaitCode
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.evidence.device_limits import above
from edgefleet.rollout.lifecycle.state import RolloutState


def baseline_waits(state: RolloutState, evidence: Evidence) -> list[Wait]:
    """The limits that the previous release is above, and the limit of failures if it is lifted."""
    waits = [
        Wait(code=WaitCode.BASELINE, text=text, since=state.created_at)
        for metric in LIMITS
        if (text := _baseline_text(state, evidence, metric))
    ]
    if state.history is not None:
        text = gate.history_text(state.history, state.spec.gate).strip()
        waits.append(Wait(code=WaitCode.HISTORY, text=text, since=state.created_at))
    return waits


def warnings(state: RolloutState) -> tuple[str, ...]:
    """The facts about earlier releases when the rollout is planned, as sentences."""
    return tuple(wait.text for wait in baseline_waits(state, Evidence()))


def _baseline_text(state: RolloutState, evidence: Evidence, metric: LimitMetric) -> str:
    """The sentence on one limit. Empty if the previous release is within it, or not known."""
    gate_spec, bound = state.spec.gate, metric.bound
    if not isinstance(bound, Bound):
        return ""
    allowed = metric.unit.text(metric.allowed(gate_spec))
    measured = _measured(state, evidence, metric)
    is_shared = metric in gate.shared_limits(evidence, gate_spec)
    if measured is None and not is_shared:
        return ""
    found = f"{metric.label}: {metric.unit.text(measured)}" if measured is not None else (
        f"{above(evidence.limits.control, metric)} of {evidence.limits.control.devices} devices"
    )  # fmt: skip
    return (
        f"Release {state.previous} is above a limit already: {found}, `{bound.option}` is "
        f"{allowed}. The limit fails release {state.spec.release} only where it is exceeded more "
        f"often than before. To have a limit that tells them apart, plan with a higher "
        f"`{bound.option}`."
    )


def _measured(state: RolloutState, evidence: Evidence, metric: LimitMetric) -> float | None:
    """The figure of the previous release, if it is above the limit.

    It is measured on the control of this rollout, or else in the rollout of the previous release.
    """
    sides = [evidence.control]
    if state.baseline is not None and state.baseline.release == state.previous:
        sides.append(state.baseline.figures)
    known = next((one for one in sides if one.requests >= state.spec.gate.min_requests), Cohort())
    value = None if metric.figure is None else metric.figure.read(known)
    return value if value is not None and value > metric.allowed(state.spec.gate) else None
