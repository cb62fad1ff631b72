"""The gate: what the evidence of a wave says - pass, fail or inconclusive.

``judge`` is a value-to-value function, and the engine takes any other of its type (``Gate``). All
its tests hold at any time of looking; docs/gate.md says what they are and how often they err.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from edgefleet.protocol.metrics import CHANGES, ERRORS, LIMITS, SILENCE, Unit, alpha_shares
from edgefleet.protocol.rollout import Evidence, GateSpec, Judgement, Rate, Verdict
from edgefleet.rollout.evidence.sequential import (
    e_value,
    exact_p_value,
    log_rate_evidence,
    rate_interval,
)
from edgefleet.rollout.lifecycle.typed_replace import replace

ENDS_ALPHA: Final = 4.0  # times alpha: for the exact looks at the ends of all waves together

# Reasons of a judgement, beside those of the metrics (``protocol.metrics``). Those to wait are also
# codes of a wait report.
PASSED: Final = "passed"
REFUSED_BY_DEVICES: Final = "refused_by_devices"
SAMPLE: Final = "sample"
STRAGGLERS: Final = "stragglers"
SOAK: Final = "soak"
INCONCLUSIVE: Final = "inconclusive"


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
        errors=_rate(bad, size, ERRORS.allowed(spec)),
        silence=_rate(evidence.silent, size, SILENCE.allowed(spec)),
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
    return ERRORS.reason, ERRORS.sentence.format(
        bad=sample.bad,
        size=sample.size,
        rate=ERRORS.unit.text(sample.rate),
        trial=trial,
        low=ERRORS.unit.text(low),
        high=ERRORS.unit.text(high),
        allowed=ERRORS.unit.text(ERRORS.allowed(spec)),
    )


def _silence(evidence: Evidence, sample: _Sample, spec: GateSpec) -> tuple[str, str] | None:
    if sample.size < sample.needed or not _worse(_log_evidence(evidence.silence), spec):
        return None
    return SILENCE.reason, SILENCE.sentence.format(
        bad=evidence.silent,
        size=sample.size,
        allowed=SILENCE.unit.text(SILENCE.allowed(spec)),
    )


def _quality(evidence: Evidence, spec: GateSpec) -> tuple[str, str] | None:
    heard = min(evidence.canary.requests, evidence.control.requests)
    measured = {found.metric: found for found in evidence.quality}
    for metric in CHANGES:
        found = measured.get(metric.key)
        if found is None or not _worse(math.log(max(found.e_value, 1e-300)), spec):
            continue
        if metric.needs_requests and heard < spec.min_requests:
            continue
        return metric.reason, metric.sentence.format(
            amount=metric.unit.text(found.mean),
            allowed=metric.unit.text(found.allowed),
            pairs=found.pairs,
        )
    return None


def _limits(evidence: Evidence, spec: GateSpec) -> tuple[str, str] | None:
    devices = evidence.limits.devices
    for metric in LIMITS:
        above: int = getattr(evidence.limits, metric.counter)
        if _worse(log_rate_evidence(above, devices, spec.max_error_rate), spec):
            return metric.reason, metric.sentence.format(
                above=above,
                devices=devices,
                allowed=metric.unit.text(metric.allowed(spec)),
                share=Unit.SHARE.text(spec.max_error_rate),
            )
    return None


def _worse(log_evidence: float, spec: GateSpec) -> bool:
    return log_evidence >= math.log(alpha_shares(spec) / spec.alpha)


def _rate(bad: int, size: int, allowed: float) -> Rate:
    low, high = rate_interval(bad, size)
    evidence = e_value(log_rate_evidence(bad, size, allowed))
    return Rate(bad=bad, size=size, allowed=allowed, low=low, high=high, e_value=evidence)


def _log_evidence(rate: Rate) -> float:
    return log_rate_evidence(rate.bad, rate.size, rate.allowed)


def _ends_share(wave: int) -> float:
    """What the look at the end of the k-th wave takes of its alpha; over all waves it sums to 1."""
    return 6 / (math.pi * wave) ** 2


def _unjudged(evidence: Evidence) -> str:
    """Says so when no device told how well the release serves."""
    return (
        "" if evidence.quality or evidence.limits.devices else "; nothing is known of its quality"
    )


def _devices(count: int) -> str:
    return "device" if count == 1 else "devices"
