"""A custom gate beside the tests of the built-in one.

A custom gate returns a ``Judgement``, which replaces the built-in gate, or an ``EValue``, which is
one more test beside the tests of the built-in gate. The e-value has a share of the plan's alpha, so
the sum of the false-alarm rates stays what the documentation promises. The false-alarm rate of a
judgement is not known, and its text says so.
"""

import math
from typing import Final

from edgefleet.protocol.metrics import (
    CHANGES,
    ERRORS,
    LIMITS,
    SILENCE,
)
from edgefleet.protocol.rollout import Evidence, GateSpec, Judgement, Verdict
from edgefleet.rollout.evidence import alphas
from edgefleet.rollout.evidence.gate import (
    CLASS_FAILURES,
    LATE_FAILURES,
    REFUSED_BY_DEVICES,
    Gate,
    judge,
)
from edgefleet.rollout.lifecycle.typed_replace import replace

_BUILT_IN: Final = {
    *(metric.reason for metric in (ERRORS, SILENCE, *CHANGES, *LIMITS)),
    CLASS_FAILURES,
    LATE_FAILURES,
    REFUSED_BY_DEVICES,
}
_NOT_IN_SUM: Final = "A custom gate decided; its false-alarm rate is not in the sum of the plan."


def judge_with(
    gate: Gate,
    evidence: Evidence,
    spec: GateSpec,
    *,
    opened_at: float,
    before: Judgement | None,
    now: float,
) -> Judgement:
    """The judgement of a hub with this gate, which may be the built-in one."""
    found = gate(evidence, spec, opened_at=opened_at, before=before, now=now)
    if isinstance(found, Judgement):
        is_own = found.verdict is Verdict.FAIL and found.reason not in _BUILT_IN
        return replace(found, text=f"{found.text} {_NOT_IN_SUM}") if is_own else found
    judgement = judge(evidence, spec, opened_at=opened_at, before=before, now=now)
    is_sure = found.log_e_value >= alphas.CUSTOM.log_bar(spec)  # False for NaN
    if judgement.verdict is Verdict.FAIL or not is_sure:
        return judgement
    odds = math.exp(min(found.log_e_value, 700.0))
    text = f"{found.text} The e-value of this custom test is {odds:.3g}."
    return replace(judgement, verdict=Verdict.FAIL, reason=found.reason, text=text, at=now)
