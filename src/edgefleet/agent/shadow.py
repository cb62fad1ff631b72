"""Judges a candidate in its shadow phase, from what the serving process measured.

The rules are those of the trial, on the same requests for both releases: failed requests
(``error_rate``), confidence (``trial``) and CPU time (``cost_trial``). The answers are compared by
the rule of the candidate's golden set. They may differ on ``max_disagreement`` of the requests:
that is tested after every sample (``error_rate``), and once all samples are there the share itself
must be within the limit.
"""

from dataclasses import dataclass

from edgefleet.agent import cost_trial, error_rate, limits
from edgefleet.agent.state import Attempt, ShadowWatch
from edgefleet.agent.trial import confidence_fault
from edgefleet.base.texts import counted
from edgefleet.protocol.device import Reason
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import LiveStats, ModelStatus
from edgefleet.protocol.shadow import PASSED, SHORT, Shadow, ShadowStatus


@dataclass(frozen=True, slots=True)
class Over:
    """The phase is over, and the trial goes on. ``reason`` is one of ``protocol.shadow``."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Bad:
    """The candidate is refused."""

    reason: str
    detail: str


def judge(
    attempt: Attempt,
    quality: Quality | None,
    watch: ShadowWatch,
    own: ModelStatus | None,
    now: float,
) -> Over | Bad | None:
    """Judge one probe. None while the phase goes on. ``own`` is the status of the model."""
    plan = attempt.shadow
    assert plan is not None, "no shadow phase"  # noqa: S101 - a defect, not input
    mine = None if own is None else own.shadow
    if own is None or mine is None or mine.release != attempt.release:
        return _out_of_time(plan, ShadowStatus(release="", artifact_sha256=""), watch, now)
    bad = _fault(plan, quality, mine)
    if bad is not None:
        return bad
    is_full = mine.samples >= plan.samples
    over: Over | None = None
    if is_full:
        over = Over(PASSED, f"Shadow: {summary(mine)}.")
    elif mine.ended:
        over = Over(SHORT, f"The shadow phase ended: {mine.ended} {_so_far(plan, mine)}")
    else:
        over = _out_of_time(plan, mine, watch, now)
    return over and (_at_end(attempt, plan, watch, own.stats, mine, is_full=is_full) or over)


def _out_of_time(plan: Shadow, mine: ShadowStatus, watch: ShadowWatch, now: float) -> Over | None:
    if now - watch.since < plan.for_s:
        return None
    return Over(SHORT, f"The shadow phase ended after {plan.for_s:g} s. {_so_far(plan, mine)}")


def _fault(plan: Shadow, quality: Quality | None, mine: ShadowStatus) -> Bad | None:
    """The fault of the candidate that no further request can change."""
    if mine.ended and mine.fault:
        return Bad(mine.cause or Reason.CRASH, f"In the shadow phase: {mine.ended}")
    if error_rate.is_too_high(mine.errors, mine.samples):
        example = f": {mine.error_example}" if mine.error_example else ""
        return Bad(
            Reason.ERRORS,
            f"In the shadow phase {mine.errors} of {mine.samples} requests failed; "
            f"{limits.MAX_ERROR_RATIO:.0%} are allowed. The active release answered them{example}",
        )
    if error_rate.is_too_high(mine.disagreement, mine.compared, plan.max_disagreement):
        return _disagrees(plan, mine)
    least = max(1, quality.min_requests) if quality is not None else 0
    if quality is None or mine.confidence_count < least:
        return None
    count = mine.confidence_count
    before, after = mine.confidence_before_sum / count, mine.confidence_sum / count
    fault = confidence_fault(before, after, count, quality)
    return Bad(Reason.CONFIDENCE, f"In the shadow phase: {fault}") if fault else None


def _at_end(
    attempt: Attempt,
    plan: Shadow,
    watch: ShadowWatch,
    stats: LiveStats,
    mine: ShadowStatus,
    *,
    is_full: bool,
) -> Bad | None:
    """The fault that is judged once, at the end: measured disagreement or CPU time."""
    if is_full and mine.disagreement > plan.max_disagreement * mine.compared:
        return _disagrees(plan, mine)
    if watch.start is None or attempt.max_cpu_increase is None:
        return None
    start = watch.start.stats
    before = stats.cpu_s - start.cpu_s, stats.requests - start.requests
    fault = cost_trial.cpu_fault(
        watch.start.release, before, (mine.cpu_s, mine.compared), attempt.max_cpu_increase
    )
    return Bad(Reason.CPU, f"In the shadow phase: {fault}") if fault else None


def _disagrees(plan: Shadow, mine: ShadowStatus) -> Bad:
    example = f" Example: {mine.difference}." if mine.difference else ""
    share = mine.disagreement / mine.compared
    return Bad(
        Reason.ANSWERS,
        f"In the shadow phase the agreement with the active release fell from 100 % to "
        f"{1 - share:.1%} over {counted(mine.compared, 'request')} (limit "
        f"{1 - plan.max_disagreement:.1%}).{example}",
    )


def summary(mine: ShadowStatus) -> str:
    """The measured values."""
    compared = mine.compared
    parts = [
        f"{counted(mine.samples, 'request')} of {mine.asked} answered by both releases",
        f"{mine.errors} failed",
    ]
    if compared:
        parts.append(f"agreement {1 - mine.disagreement / compared:.1%}")
    if count := mine.confidence_count:
        before, after = mine.confidence_before_sum / count, mine.confidence_sum / count
        parts.append(f"confidence {before:.3f} -> {after:.3f}")
    if compared:
        parts.append(f"CPU {1e6 * mine.cpu_s / compared:.0f} us")
        parts.append(f"p95 {mine.latency_us_p95 / 1000:.1f} ms")
    return ", ".join(parts)


def _so_far(plan: Shadow, mine: ShadowStatus) -> str:
    """The evidence of a phase that ended early, as sentences."""
    skipped = ", ".join(f"{why} {count}" for why, count in sorted(mine.skipped.items()) if count)
    left_out = f" Skipped: {skipped}." if skipped else ""
    if not mine.samples:
        return (
            f"No request was compared, of {plan.samples}: the trial goes on without its "
            f"evidence.{left_out}"
        )
    return f"{summary(mine)}; {plan.samples} were wanted.{left_out}"
