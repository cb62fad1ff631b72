"""The gate: the verdict on the evidence of a wave (pass, fail or inconclusive).

``judge`` is a pure function, and the engine accepts any other function of the type ``Gate``. All
tests of ``judge`` are valid at every time of reading. docs/gate.md explains the tests and their
false-alarm rates.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from edgefleet.base.texts import counted
from edgefleet.protocol.metric_bounds import Unit
from edgefleet.protocol.metric_kinds import LimitMetric, Metric
from edgefleet.protocol.metrics import (
    CHANGES,
    ERRORS,
    LIMITS,
    SILENCE,
)
from edgefleet.protocol.rollout import (
    EValue,
    Evidence,
    GateSpec,
    History,
    Judgement,
    LateFailures,
    LimitCounts,
    Rate,
    Verdict,
)
from edgefleet.rollout.evidence import alphas, class_test, traffic
from edgefleet.rollout.evidence.cause import cause_of_failures, figures_of_sides
from edgefleet.rollout.evidence.device_limits import (
    above,
    clearest,
    control_p_value,
    is_shared,
    sign_evidence,
)
from edgefleet.rollout.evidence.sequential import (
    e_value,
    exact_p_value,
    log_rate_evidence,
    rate_interval,
    share_of,
)
from edgefleet.rollout.lifecycle.typed_replace import replace

# Reasons of a judgement, in addition to those of the metrics (``protocol.metrics``). The reasons to
# wait are also codes of a wait report.
PASSED: Final = "passed"
REFUSED_BY_DEVICES: Final = "refused_by_devices"
LATE_FAILURES: Final = "late_failures"
ONE_SITE: Final = "one_site"
CLASS_FAILURES: Final = "class_failures"
SAMPLE: Final = "sample"
STRAGGLERS: Final = "stragglers"
SOAK: Final = "soak"
INCONCLUSIVE: Final = "inconclusive"
EXTENDS: Final = "extends"  # the wave takes more devices by itself

_LOOK_GROWTH: Final = 1.25  # finished devices at a look, as a multiple of those at the last one


class Gate(Protocol):
    """Judges the open wave. ``before`` is the last judgement that had another reason.

    A custom gate may return an e-value instead of a judgement: see ``evidence.custom``.
    """

    def __call__(
        self,
        evidence: Evidence,
        spec: GateSpec,
        *,
        opened_at: float,
        before: Judgement | None,
        now: float,
    ) -> Judgement | EValue: ...


@dataclass(frozen=True, slots=True)
class _Sample:
    """The counts of devices that the rule uses."""

    bad: int
    size: int
    unfinished: int  # offered the release or in trial
    waiting: bool  # stragglers may still finish within the patience of the plan
    patience_over: bool
    needed: int
    interim: int  # number of the exact test that may be taken now; 0: none
    allowed: float  # the limit of the rate
    why_allowed: str  # the reason for a limit above that of the plan, as a sentence

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
        errors=_rate(bad, size, failures_allowed(evidence.history, spec)),
        silence=_rate(evidence.silent, size, SILENCE.allowed(spec)),
    )


def failures_allowed(history: History | None, spec: GateSpec) -> float:
    """The failure rate that is allowed: that of the plan, or what earlier releases lift it to."""
    return ERRORS.allowed(spec) if history is None else history.allowed


def judge(
    evidence: Evidence,
    spec: GateSpec,
    *,
    opened_at: float,
    before: Judgement | None,
    now: float,
) -> Judgement:
    """Fail as soon as the evidence suffices; pass only if no device of the wave can still report.

    Rate = (failed + refused) / (failed + refused + healthy). Its limit is ``max_error_rate``, or
    more where earlier releases failed as often (``history``). The rate fails the wave in two cases:
    its e-value reaches the bar of ``alphas`` on a sufficient sample; or the wave has ended and the
    exact test of its counts fails. In a small fleet the exact boundary takes the place of both. At
    the end of a wave, an undecided rate takes more devices; at the end of the fleet, a person
    decides if the p-value is at most ``ask_p``, and else the wave passes. It does not pass while
    ``traffic.missing`` says that clients do not reach the release. The patience limits the
    wait for devices that have not started. For devices in trial, the longest duration of a trial is
    added.
    """
    evidence = weigh(evidence, spec)
    sample = _sample(evidence, spec, opened_at, now)

    def judged(verdict: Verdict, reason: str, text: str, unjudged: str = "") -> Judgement:
        return Judgement(
            verdict=verdict,
            reason=reason,
            text=text,
            at=now,
            evidence=evidence,
            interim=sample.interim,
            unjudged=unjudged,
        )

    failing = _failing(evidence, sample, spec)
    if failing is not None:
        return judged(Verdict.FAIL, *failing)
    open_for = _inconclusive(evidence, sample, spec)
    if open_for is not None:
        return judged(Verdict.INCONCLUSIVE, *open_for)
    passing_s = now - before.at if before is not None and before.reason == SOAK else 0.0
    text = f"{sample.bad} of {sample.size} devices failed."
    if sample.rate > sample.allowed:
        text = cause_of_failures(evidence) + _not_distinguished(sample)
    unjudged = traffic.unjudged(evidence, spec)
    text += f" {unjudged}" if unjudged else ""
    if passing_s >= spec.soak_s:
        return judged(Verdict.PASS, PASSED, text, unjudged)
    text += f" The wave must pass for {spec.soak_s:g} s."
    return judged(Verdict.INCONCLUSIVE, SOAK, text)


def _inconclusive(evidence: Evidence, sample: _Sample, spec: GateSpec) -> tuple[str, str] | None:
    """The reason and text of a verdict that cannot be given yet. None if the wave may pass."""
    if sample.size < sample.needed:
        missing = count_missing(evidence, spec) if evidence.spare and sample.patience_over else 0
        text = f"{sample.size} of the {sample.needed} devices that a verdict needs have finished."
        if missing > 0:
            moved = counted(min(missing, evidence.spare), "device")
            text += f" Moving up: {moved} at the next positions."
            return EXTENDS, text
        return SAMPLE, text
    undecided = sample.rate > sample.allowed
    if undecided and evidence.handful:
        return EXTENDS, cause_of_failures(evidence) + _extending(sample)
    if sample.waiting:
        text = f"Unfinished devices of the wave, online or in trial: {sample.unfinished}."
        return STRAGGLERS, text
    if undecided and evidence.remaining and not evidence.needs_approval:
        return EXTENDS, cause_of_failures(evidence) + _extending(sample)
    if undecided and (evidence.remaining or _p_value(sample) <= spec.ask_p):
        return INCONCLUSIVE, (
            f"{cause_of_failures(evidence)}{_shares(sample)}; too few devices for a verdict."
            f"{sample.why_allowed} Run "
            "`edgefleet rollout advance` or `edgefleet rollout revert`."
        )
    if unreached := traffic.missing(evidence, spec):
        return traffic.NO_REQUESTS, unreached
    return None


def _failing(evidence: Evidence, sample: _Sample, spec: GateSpec) -> tuple[str, str] | None:
    """The reason and the text of the first test that fails the release. None if none does."""
    return (
        _class_failures(evidence, spec)
        or _errors(evidence, sample, spec)
        or _silence(evidence, sample, spec)
        or _late(evidence, spec)
        or _quality(evidence, spec)
        or _limits(evidence, spec)
    )


def _sample(evidence: Evidence, spec: GateSpec, opened_at: float, now: float) -> _Sample:
    begun_until = opened_at + spec.patience_s
    trial_until = begun_until + spec.confirm_after_s + spec.silence_s
    patience_over = now >= begun_until
    bad = evidence.failed + evidence.refused
    size = bad + evidence.healthy
    waiting = (evidence.in_trial > 0 and now < trial_until) or (
        evidence.offered > 0 and not patience_over
    )
    needed = _wanted(evidence, spec)
    if patience_over:
        needed = min(needed, size + evidence.in_trial + evidence.spare)
    needed = max(1, needed)
    ended = size >= needed and not waiting and not evidence.handful and evidence.boundary is None
    grown = size >= _LOOK_GROWTH * evidence.looked
    return _Sample(
        bad=bad,
        size=size,
        unfinished=evidence.offered + evidence.in_trial,
        waiting=waiting,
        patience_over=patience_over,
        needed=needed,
        interim=evidence.looks + 1 if ended and grown else 0,
        allowed=evidence.errors.allowed,
        why_allowed=history_text(evidence.history, spec),
    )


def count_missing(evidence: Evidence, spec: GateSpec) -> int:
    """Devices that the sample of the plan lacks, when no more devices are expected to begin."""
    finished = evidence.failed + evidence.refused + evidence.healthy
    return _wanted(evidence, spec) - finished - evidence.in_trial


def _wanted(evidence: Evidence, spec: GateSpec) -> int:
    return min(spec.min_sample, (evidence.planned or evidence.cut) - evidence.taken_back)


def _p_value(sample: _Sample) -> float:
    return exact_p_value(sample.bad, sample.size, sample.allowed)


def _shares(sample: _Sample) -> str:
    return (
        f"{sample.bad} of {sample.size} devices failed ({ERRORS.unit.text(sample.rate)}), "
        f"{ERRORS.unit.text(sample.allowed)} allowed"
    )


def _extending(sample: _Sample) -> str:
    text = "too few devices for a verdict. The wave takes more devices."
    return f"{_shares(sample)}; {text}{sample.why_allowed}"


def _not_distinguished(sample: _Sample) -> str:
    """The sentence of a wave that passes at the end of the fleet with a rate above the limit."""
    low, high = rate_interval(sample.bad, sample.size)
    return (
        f"{_shares(sample)}; the whole fleet cannot tell it from the limit (95 % interval "
        f"{ERRORS.unit.text(low)} to {ERRORS.unit.text(high)}).{sample.why_allowed}"
    )


def history_text(history: History | None, spec: GateSpec) -> str:
    """Why more failures are allowed than the plan says, as a sentence. Empty if they are not."""
    if history is None:
        return ""
    count = len(history.rollouts)
    before = counted(count, "release")
    return (
        f" The plan allows {ERRORS.unit.text(ERRORS.allowed(spec))}; the last {before} that stood "
        f"failed on {history.bad} of {history.size} devices, so up to "
        f"{ERRORS.unit.text(history.allowed)} is not the fault of this release."
    )


def _errors(evidence: Evidence, sample: _Sample, spec: GateSpec) -> tuple[str, str] | None:
    boundary = evidence.boundary
    if boundary is None:
        fails = _is_refuted(evidence, sample, spec)
    else:
        fails = boundary.bad >= boundary.needed
    if not fails:
        return None
    if evidence.exposed == 0:
        refused = "refused or cannot download" if evidence.damaged else "refused"
        text = (
            f"{sample.bad} of {sample.size} devices {refused} the release; no device activated it."
        )
        return REFUSED_BY_DEVICES, cause_of_failures(evidence) + text
    trial = f", {evidence.in_trial} in trial" if evidence.in_trial else ""
    text = cause_of_failures(evidence) + ERRORS.sentence.format(
        bad=sample.bad,
        size=sample.size,
        rate=ERRORS.unit.text(sample.rate),
        trial=trial,
        allowed=ERRORS.unit.text(sample.allowed),
    )
    text += sample.why_allowed
    if boundary is not None:
        text += (
            f" In a fleet of {boundary.devices}, {boundary.needed} failures of the first "
            f"{counted(boundary.size, 'device')} fail a release."
        )
    return ERRORS.reason, text


def _is_refuted(evidence: Evidence, sample: _Sample, spec: GateSpec) -> bool:
    """True if the rate is above its limit by the e-value, or by the exact test at an end."""
    if sample.rate <= sample.allowed:
        return False
    # After the patience, no more devices are expected. The e-value accounts for a small sample.
    enough = sample.size >= sample.needed or sample.patience_over
    if enough and _log_evidence(evidence.errors) >= alphas.FAILURES.log_bar(spec):
        return True
    if not sample.interim:
        return False
    return _p_value(sample) <= share_of(sample.interim) * alphas.ENDS.alpha(spec)


def _silence(evidence: Evidence, sample: _Sample, spec: GateSpec) -> tuple[str, str] | None:
    bar = alphas.SILENCE.log_bar(spec)
    if sample.size < sample.needed or _log_evidence(evidence.silence) < bar:
        return None
    sites = evidence.sites
    if sites.has_control and math.log(max(sites.e_value, 1e-300)) < bar:
        return None
    return SILENCE.reason, SILENCE.sentence.format(
        bad=evidence.silent,
        size=sample.size,
        allowed=SILENCE.unit.text(SILENCE.allowed(spec)),
    )


def _late(evidence: Evidence, spec: GateSpec) -> tuple[str, str] | None:
    late = evidence.late
    if late.e_value <= 0 or math.log(late.e_value) < alphas.LATE.log_bar(spec):
        return None
    text = late_text(late, evidence.errors.allowed)
    return LATE_FAILURES, cause_of_failures(evidence) + text + history_text(evidence.history, spec)


def late_text(late: LateFailures, allowed: float) -> str:
    """The late failures as a sentence. ``allowed`` is the limit of the failure rate."""
    when = "one after another" if late.episode_since is None else "after a pause"
    text = f"{late.bad} of {counted(late.size, 'device')} that started {when} failed"
    text += f", after {counted(late.before, 'device')} before them" if late.before else ""
    return f"{text}; {ERRORS.unit.text(allowed)} allowed."


def _class_failures(evidence: Evidence, spec: GateSpec) -> tuple[str, str] | None:
    found = class_test.failed_class(evidence, spec)
    if found is None:
        return None
    mine, rest = found.rate, class_test.rest_of(evidence, found)
    if rest.size < 1 or _log_evidence(rest) > 0:
        return None  # no class is to blame; the tests of all devices decide
    return CLASS_FAILURES, (
        f"{cause_of_failures(evidence)}{mine.bad} of the {counted(mine.size, 'device')} with "
        f"{found.name} that began failed, {rest.bad} of the {rest.size} others; "
        f"{ERRORS.unit.text(mine.allowed)} allowed."
    )


def _quality(evidence: Evidence, spec: GateSpec) -> tuple[str, str] | None:
    requests = min(evidence.canary.requests, evidence.control.requests)
    measured = {found.metric: found for found in evidence.quality}
    for metric in CHANGES:
        found = measured.get(metric.key)
        if found is None:
            continue
        if math.log(max(found.e_value, 1e-300)) < alphas.change_log_bar(metric, spec):
            continue
        if metric.of_labels and evidence.labels.is_shared:
            continue
        if metric.needs_requests and requests < spec.min_requests:
            continue
        text = metric.sentence.format(
            amount=metric.unit.text(found.mean),
            allowed=metric.unit.text(found.allowed),
            pairs=found.pairs,
            neighbour=found.neighbour,
        )
        text += figures_of_sides(metric, evidence)
        if metric.of_labels:
            text += f" Accuracy: {evidence.labels.text}."
        return metric.reason, text + _cause_of(metric, evidence)
    return None


def _limits(evidence: Evidence, spec: GateSpec) -> tuple[str, str] | None:
    for metric in LIMITS:
        if not _is_above(evidence.limits, metric, spec):
            continue
        if not _is_worse(evidence.limits, metric, spec):
            continue
        text = _limit_text(evidence.limits, metric, spec)
        return metric.reason, text + _cause_of(metric, evidence)
    return None


def _cause_of(metric: Metric, evidence: Evidence) -> str:
    """The cause that the canary names, as a sentence. Empty if it names none."""
    cause = "" if metric.cause is None else metric.cause(evidence.canary)
    return f" {cause}" if cause else ""


def _is_above(counts: LimitCounts, metric: LimitMetric, spec: GateSpec) -> bool:
    """True if more devices exceed the limit than the plan allows."""
    exceeding = above(counts, metric)
    found = log_rate_evidence(exceeding, counts.devices, spec.max_error_rate)
    return found >= alphas.limits_log_bar(spec)


def _is_worse(counts: LimitCounts, metric: LimitMetric, spec: GateSpec) -> bool:
    """True if the limit is exceeded more than by the release before: see ``device_limits``.

    False if a release ran before, and nothing shows how often it exceeded the limit.
    """
    if is_shared(counts, metric):
        return False
    rounds = counts.pairs.get(metric.key)
    if rounds:
        return sign_evidence(rounds) >= alphas.limits_log_bar(spec)
    if not counts.has_previous:
        return True
    return -math.log(control_p_value(counts, metric)) >= alphas.limits_log_bar(spec)


def shared_limits(evidence: Evidence, spec: GateSpec) -> tuple[LimitMetric, ...]:
    """The limits that too many devices exceed, which is not the fault of the release."""
    counts = evidence.limits
    return tuple(
        metric
        for metric in LIMITS
        if _is_above(counts, metric, spec) and not _is_worse(counts, metric, spec)
    )


def _limit_text(counts: LimitCounts, metric: LimitMetric, spec: GateSpec) -> str:
    text = metric.sentence.format(
        above=above(counts, metric),
        devices=counts.devices,
        allowed=metric.unit.text(metric.allowed(spec)),
        share=Unit.SHARE.text(spec.max_error_rate),
    )
    rounds = counts.pairs.get(metric.key)
    if rounds:
        pairs = clearest(rounds)
        text += (
            f" Of {counted(pairs.pairs, 'device')} compared with the previous release, "
            f"{pairs.worse} exceed the limit only now, {pairs.better} only before."
        )
    elif counts.control.devices:
        text += f" In the control: {above(counts.control, metric)} of {counts.control.devices}."
    return text


def _rate(bad: int, size: int, allowed: float) -> Rate:
    low, high = rate_interval(bad, size)
    evidence = e_value(log_rate_evidence(bad, size, allowed))
    return Rate(bad=bad, size=size, allowed=allowed, low=low, high=high, e_value=evidence)


def _log_evidence(rate: Rate) -> float:
    return log_rate_evidence(rate.bad, rate.size, rate.allowed)
