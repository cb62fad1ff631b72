"""The gate: the verdict on the evidence of a wave (pass, fail or inconclusive).

``judge`` is a pure function, and the engine accepts any other function of the type ``Gate``. All
tests of ``judge`` are valid at every time of reading. docs/gate.md explains the tests and their
false-alarm rates.
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
    share_of,
)
from edgefleet.rollout.lifecycle.typed_replace import replace

ENDS_ALPHA: Final = 4.0  # times alpha: for the exact tests at the ends of all waves together

# Reasons of a judgement, in addition to those of the metrics (``protocol.metrics``). The reasons to
# wait are also codes of a wait report.
PASSED: Final = "passed"
REFUSED_BY_DEVICES: Final = "refused_by_devices"
SAMPLE: Final = "sample"
STRAGGLERS: Final = "stragglers"
SOAK: Final = "soak"
INCONCLUSIVE: Final = "inconclusive"


class Gate(Protocol):
    """Judges the open wave. ``before`` is the last judgement that had another reason."""

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
    """The counts of devices that the rule uses."""

    bad: int
    size: int
    cut: int
    unfinished: int  # offered the release or in trial
    waiting: bool  # stragglers may still finish within the patience of the plan
    patience_over: bool
    needed: int

    @property
    def rate(self) -> float:
        return self.bad / self.size if self.size else 0.0


def weigh(evidence: Evidence, spec: GateSpec) -> Evidence:
    """The evidence with its rates, their intervals and their e-values.

    A device in trial counts as healthy so far. Devices report failures sooner than confirmations,
    so the failures among finished devices are biased upwards. The share among all started devices
    is not biased, and the guarantees of the tests hold in the order of the starts.
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
    """Fail as soon as the evidence suffices; pass only if no device of the wave can still report.

    Rate = (failed + refused) / (failed + refused + healthy). The rate fails the wave in three
    cases: its e-value reaches 1 / alpha on a sufficient sample; the wave has ended and the exact
    test of its counts fails; or all devices of the wave have reported and none is healthy. The
    patience limits the wait for devices that have not started. For devices in trial, the longest
    duration of a trial is added.
    """
    evidence = weigh(evidence, spec)
    sample = _sample(evidence, spec, opened_at, now)

    def judged(verdict: Verdict, reason: str, text: str) -> Judgement:
        return Judgement(verdict=verdict, reason=reason, text=text, at=now, evidence=evidence)

    failing = _errors(evidence, sample, spec, before) or _silence(evidence, sample, spec)
    failing = failing or _quality(evidence, spec) or _limits(evidence, spec)
    if failing is not None:
        return judged(Verdict.FAIL, *failing)
    if sample.size < sample.needed:
        return judged(
            Verdict.INCONCLUSIVE,
            SAMPLE,
            f"{sample.size} of the {sample.needed} devices that a verdict needs have finished.",
        )
    if sample.waiting:
        return judged(
            Verdict.INCONCLUSIVE,
            STRAGGLERS,
            f"Unfinished devices of the wave, online or in trial: {sample.unfinished}.",
        )
    if sample.rate > spec.max_error_rate:
        return judged(
            Verdict.INCONCLUSIVE,
            INCONCLUSIVE,
            f"{ERRORS.unit.text(sample.rate)} of devices failed ({sample.bad} of {sample.size}), "
            f"{ERRORS.unit.text(spec.max_error_rate)} allowed; too few devices for a verdict. Run "
            "`edgefleet rollout advance` or `edgefleet rollout revert`.",
        )
    passing_s = now - before.at if before is not None and before.reason == SOAK else 0.0
    text = f"{sample.bad} of {sample.size} devices failed.{_unjudged(evidence, spec)}"
    if passing_s >= spec.soak_s:
        return judged(Verdict.PASS, PASSED, text)
    text += f" The wave must pass for {spec.soak_s:g} s."
    return judged(Verdict.INCONCLUSIVE, SOAK, text)


def _sample(evidence: Evidence, spec: GateSpec, opened_at: float, now: float) -> _Sample:
    begun_until = opened_at + spec.patience_s
    trial_until = begun_until + spec.confirm_after_s + spec.silence_s
    patience_over = now >= begun_until
    needed = min(spec.min_sample, evidence.cut)
    bad = evidence.failed + evidence.refused
    size = bad + evidence.healthy
    if patience_over and evidence.cut < spec.min_sample:
        # For a wave smaller than the sample, the devices that started are sufficient.
        needed = min(needed, size + evidence.in_trial)
    return _Sample(
        bad=bad,
        size=size,
        cut=evidence.cut,
        unfinished=evidence.offered + evidence.in_trial,
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
    all_finished = sample.size >= sample.cut
    none_healthy = all_finished and sample.bad == sample.size
    # After the patience, no more devices are expected. The e-value accounts for a small sample.
    enough = sample.size >= sample.needed or sample.patience_over
    sure = enough and _log_evidence(evidence.errors) >= -math.log(spec.alpha)
    # Once for each wave: all available devices have finished, so the sample was fixed beforehand.
    tested = before is not None and before.reason in (INCONCLUSIVE, SOAK)
    ended = sample.size >= sample.needed and not sample.waiting and not tested
    share = share_of(evidence.wave) * ENDS_ALPHA * spec.alpha
    at_end = ended and exact_p_value(sample.bad, sample.size, spec.max_error_rate) <= share
    if not (none_healthy or sure or at_end):
        return None
    if evidence.exposed == 0:
        text = f"{sample.bad} of {sample.size} devices refused the release; no device activated it."
        return REFUSED_BY_DEVICES, _cause(evidence) + text
    low, high = evidence.errors.low, evidence.errors.high
    trial = f", with {evidence.in_trial} in trial" if evidence.in_trial else ""
    return ERRORS.reason, _cause(evidence) + ERRORS.sentence.format(
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
    requests = min(evidence.canary.requests, evidence.control.requests)
    measured = {found.metric: found for found in evidence.quality}
    for metric in CHANGES:
        found = measured.get(metric.key)
        if found is None or not _worse(math.log(max(found.e_value, 1e-300)), spec):
            continue
        if metric.needs_requests and requests < spec.min_requests:
            continue
        return metric.reason, metric.sentence.format(
            amount=metric.unit.text(found.mean),
            allowed=metric.unit.text(found.allowed),
            pairs=found.pairs,
            neighbour=found.neighbour,
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


def _unjudged(evidence: Evidence, spec: GateSpec) -> str:
    """The gap in the knowledge of the quality, as a sentence. Empty if live requests were compared.

    Golden accuracy and the figures of other models say nothing about live requests.
    """
    if not evidence.canary.requests:
        return " The release served no requests, so nothing is known of its quality."
    compared = {metric.key for metric in CHANGES if metric.needs_requests}
    if any(found.metric in compared for found in evidence.quality):
        if min(evidence.canary.requests, evidence.control.requests) >= spec.min_requests:
            return ""
        return f" Its quality is judged from {spec.min_requests} requests on, beside a control."
    if evidence.limits.devices:
        return " Its quality was compared with the limits of the plan, not with a control."
    return " Its requests were too few to judge its quality."


def _cause(evidence: Evidence) -> str:
    """The most frequent reason that devices gave, as a sentence. Empty if they gave none."""
    if not evidence.reasons:
        return ""
    reason, count = max(evidence.reasons.items(), key=lambda item: item[1])
    return f"Most frequent cause: {reason} ({_devices(count)}). " if reason else ""


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
