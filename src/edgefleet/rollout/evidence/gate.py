"""The gate: what the evidence of a wave says - pass, fail or inconclusive.

``judge`` is a value-to-value function, and the engine takes any other of its type (``Gate``). All
its tests hold at any time of looking; docs/gate.md says what they are and how often they err.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from edgefleet.protocol.rollout import Evidence, GateSpec, Judgement, Rate, Verdict
from edgefleet.rollout.evidence.sequential import (
    e_value,
    exact_p_value,
    log_rate_evidence,
    rate_interval,
)
from edgefleet.rollout.lifecycle.changes import replace

ENDS_ALPHA: Final = 4.0  # times alpha: for the exact looks at the ends of all waves together
OTHER_TESTS: Final = 10.0  # share alpha: silence, three limits, six differences

# Reasons of a judgement. Those to wait are also codes of a wait report.
PASSED: Final = "passed"
ERROR_RATE: Final = "error_rate"
SILENT: Final = "silent"
REFUSED_BY_DEVICES: Final = "refused_by_devices"
LATENCY: Final = "latency"
REQUEST_ERRORS: Final = "request_errors"
MEMORY: Final = "memory"
ACCURACY_DROP: Final = "accuracy_drop"
CONFIDENCE_DROP: Final = "confidence_drop"
DRIFT: Final = "drift"
SAMPLE: Final = "sample"
STRAGGLERS: Final = "stragglers"
SOAK: Final = "soak"
INCONCLUSIVE: Final = "inconclusive"

_DIFFERENCES: Final = {
    "latency": (LATENCY, "The 95th percentile of latency grew by {mean}", "factor"),
    "request_errors": (REQUEST_ERRORS, "The share of failed requests grew by {mean}", "share"),
    "confidence": (CONFIDENCE_DROP, "Mean confidence fell by {mean}", "number"),
    "accuracy": (ACCURACY_DROP, "Golden accuracy fell by {mean}", "share"),
    "classes": (DRIFT, "The classes that devices see drifted by {mean}", "number"),
    "inputs": (DRIFT, "The inputs that devices see drifted by {mean}", "number"),
}


class Gate(Protocol):
    """Judges the open wave. ``before`` is its last judgement that gave another reason."""

    def __call__(
        self,
        evidence: Evidence,
        spec: GateSpec,
        *,
        opened_at: float,
        before: Judgement | None,
        now: float,
    ) -> Judgement: ...


@dataclass(frozen=True, slots=True)
class _Sample:
    """The evidence, counted the way the rule counts."""

    bad: int
    size: int
    cut: int
    unheard: int  # reached, but not finished
    waiting: bool  # stragglers may still finish within the spec's patience
    patience_over: bool
    needed: int

    @property
    def rate(self) -> float:
        return self.bad / self.size if self.size else 0.0


def weigh(evidence: Evidence, spec: GateSpec) -> Evidence:
    """The evidence with its rates, their intervals and their e-values filled in.

    A device on trial counts as good so far. Failures are told sooner than confirmations are, so
    among those that have finished there are always too many of them; among all that began there
    never are, and what the tests promise holds in the order of beginning.
    """
    bad = evidence.failed + evidence.refused
    size = bad + evidence.healthy + evidence.in_trial
    return replace(
        evidence,
        errors=_rate(bad, size, spec.max_error_rate),
        silence=_rate(evidence.silent, size, spec.max_silent_rate),
    )


def judge(
    evidence: Evidence,
    spec: GateSpec,
    *,
    opened_at: float,
    before: Judgement | None,
    now: float,
) -> Judgement:
    """Fail as soon as the evidence allows, pass only when nothing is left to learn.

    Rate = (failed + refused) / (failed + refused + healthy). It fails the wave when its e-value
    reaches 1 / alpha on a sufficient sample; when the wave has ended and the exact test of its
    counts says so; or when the whole wave has spoken and no device is well. Patience ends the wait
    for devices that have not begun; those in trial get the time that a trial can take on top.
    """
    evidence = weigh(evidence, spec)
    sample = _sample(evidence, spec, opened_at, now)

    def say(verdict: Verdict, reason: str, text: str) -> Judgement:
        return Judgement(verdict=verdict, reason=reason, text=text, at=now, evidence=evidence)

    failing = _errors(evidence, sample, spec, before) or _silence(evidence, sample, spec)
    failing = failing or _quality(evidence, spec) or _limits(evidence, spec)
    if failing is not None:
        return say(Verdict.FAIL, *failing)
    if sample.size < sample.needed:
        return say(
            Verdict.INCONCLUSIVE,
            SAMPLE,
            f"{sample.size} of the {sample.needed} devices that a verdict needs have finished.",
        )
    if sample.waiting:
        return say(
            Verdict.INCONCLUSIVE,
            STRAGGLERS,
            f"Not finished yet: {sample.unheard} reached {_devices(sample.unheard)} of the wave.",
        )
    if sample.rate > spec.max_error_rate:
        return say(
            Verdict.INCONCLUSIVE,
            INCONCLUSIVE,
            f"{sample.bad} of {sample.size} failed: above {spec.max_error_rate:.1%}, "
            "but too few to be sure. Advance or revert by hand.",
        )
    stood_s = now - before.at if before is not None and before.reason == SOAK else 0.0
    told = f"{sample.bad} of {sample.size} failed{_unjudged(evidence)}"
    if stood_s >= spec.soak_s:
        return say(Verdict.PASS, PASSED, f"{told}.")
    return say(Verdict.INCONCLUSIVE, SOAK, f"{told}; this must stand for {spec.soak_s:g} s.")


def _sample(evidence: Evidence, spec: GateSpec, opened_at: float, now: float) -> _Sample:
    begun_until = opened_at + spec.patience_s
    trial_until = begun_until + spec.confirm_after_s + spec.silence_s
    patience_over = now >= begun_until
    needed = min(spec.min_sample, evidence.cut)
    bad = evidence.failed + evidence.refused
    size = bad + evidence.healthy
    if patience_over and evidence.cut < spec.min_sample:
        # A wave that is smaller than the sample counts as far as it could be reached.
        needed = min(needed, size + evidence.in_trial)
    return _Sample(
        bad=bad,
        size=size,
        cut=evidence.cut,
        unheard=evidence.offered + evidence.in_trial,
        waiting=(evidence.in_trial > 0 and now < trial_until)
        or (evidence.offered > 0 and not patience_over),
        patience_over=patience_over,
        needed=max(1, needed),
    )


def _errors(
    evidence: Evidence, sample: _Sample, spec: GateSpec, before: Judgement | None
) -> tuple[str, str] | None:
    if sample.rate <= spec.max_error_rate:
        return None
    spoken = sample.size >= sample.cut
    none_well = spoken and sample.bad == sample.size
    # When patience is over few devices are all there is, and the test knows how few they are.
    enough = sample.size >= sample.needed or sample.patience_over
    sure = enough and _log_evidence(evidence.errors) >= -math.log(spec.alpha)
    # Once a wave: all that could be had of it have spoken, so the sample was fixed beforehand.
    looked = before is not None and before.reason in (INCONCLUSIVE, SOAK)
    ended = sample.size >= sample.needed and not sample.waiting and not looked
    share = _ends_share(evidence.wave) * ENDS_ALPHA * spec.alpha
    at_end = ended and exact_p_value(sample.bad, sample.size, spec.max_error_rate) <= share
    if not (none_well or sure or at_end):
        return None
    if evidence.exposed == 0:
        return (
            REFUSED_BY_DEVICES,
            f"{sample.bad} of {sample.size} devices would not activate it; none did.",
        )
    low, high = evidence.errors.low, evidence.errors.high
    trial = f", with {evidence.in_trial} on trial" if evidence.in_trial else ""
    text = (
        f"{sample.bad} of {sample.size} failed, {sample.rate:.1%} (95 % interval{trial} "
        f"{low:.1%} to {high:.1%}): {spec.max_error_rate:.1%} is allowed."
    )
    return ERROR_RATE, text


def _silence(evidence: Evidence, sample: _Sample, spec: GateSpec) -> tuple[str, str] | None:
    if sample.size < sample.needed or not _worse(_log_evidence(evidence.silence), spec):
        return None
    text = (
        f"{evidence.silent} of {sample.size} went silent after activating it: "
        f"{spec.max_silent_rate:.1%} is allowed."
    )
    return SILENT, text


def _quality(evidence: Evidence, spec: GateSpec) -> tuple[str, str] | None:
    for found in evidence.quality:
        if not _worse(math.log(max(found.e_value, 1e-300)), spec):
            continue
        heard = min(evidence.canary.requests, evidence.control.requests)
        if found.metric != "accuracy" and heard < spec.min_requests:
            continue
        reason, text, unit = _DIFFERENCES[found.metric]
        against = "the release before it" if found.metric == "accuracy" else "the control"
        said = (
            f"{text.format(mean=_figure(found.mean, unit))} against {against} over "
            f"{found.pairs} pairs: {_figure(found.allowed, unit)} is allowed."
        )
        return reason, said
    return None


def _limits(evidence: Evidence, spec: GateSpec) -> tuple[str, str] | None:
    found = evidence.limits
    for reason, above, what in (
        (LATENCY, found.latency, f"a 95th percentile above {spec.max_latency_p95_ms:g} ms"),
        (
            REQUEST_ERRORS,
            found.request_errors,
            f"more than {spec.max_request_error_rate:.1%} failed requests",
        ),
        (
            MEMORY,
            found.memory,
            f"more than {spec.max_memory_percent:g} % of the memory that the variant may take",
        ),
    ):
        if _worse(log_rate_evidence(above, found.devices, spec.max_error_rate), spec):
            return reason, f"{above} of {found.devices} devices have {what}."
    return None


def _worse(log_evidence: float, spec: GateSpec) -> bool:
    return log_evidence >= math.log(OTHER_TESTS / spec.alpha)


def _rate(bad: int, size: int, allowed: float) -> Rate:
    low, high = rate_interval(bad, size)
    evidence = e_value(log_rate_evidence(bad, size, allowed))
    return Rate(bad=bad, size=size, allowed=allowed, low=low, high=high, e_value=evidence)


def _log_evidence(rate: Rate) -> float:
    return log_rate_evidence(rate.bad, rate.size, rate.allowed)


def _ends_share(wave: int) -> float:
    """What the look at the end of the k-th wave takes of its alpha; over all waves it sums to 1."""
    return 6 / (math.pi * wave) ** 2


def _figure(value: float, unit: str) -> str:
    match unit:
        case "factor":
            return f"{math.expm1(value):.1%}"
        case "share":
            return f"{value:.1%}"
        case _:
            return f"{value:.3f}"


def _unjudged(evidence: Evidence) -> str:
    """Says so when no device told how well the release serves."""
    return (
        "" if evidence.quality or evidence.limits.devices else "; nothing is known of its quality"
    )


def _devices(count: int) -> str:
    return "device" if count == 1 else "devices"
