"""Judges the health of a release in trial, from serving figures alone."""

import math
from dataclasses import dataclass
from typing import Final

from edgefleet.agent import cost_figures, cost_trial, error_rate, hang, limits, load, two_samples
from edgefleet.agent import quality_window as window
from edgefleet.agent.state import Attempt, LoadMark, Mark, Neighbour, Watch
from edgefleet.agent.typed_replace import replace
from edgefleet.base.texts import counted
from edgefleet.protocol.device import Reason
from edgefleet.protocol.release import Quality
from edgefleet.protocol.serving import LiveStats, ModelStatus, ServingStatus, model_status


@dataclass(frozen=True, slots=True)
class Healthy:
    """The release was healthy long enough: confirm it."""


@dataclass(frozen=True, slots=True)
class Sick:
    """The release failed its trial."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Watching:
    """The trial continues with ``watch``."""

    watch: Watch


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The serving process ended or hangs: serve the release again, and watch it anew."""


HEALTHY: Final = Healthy()
INTERRUPTED: Final = Interrupted()


def begin(
    attempt: Attempt,
    status: ServingStatus,
    now: float,
    neighbours: tuple[Neighbour, ...] = (),
    marks: tuple[LoadMark, ...] = (),
) -> Watch:
    """Start to watch the release of ``attempt``, and the other models on the device.

    ``marks`` are readings of the CPU before the activation, the oldest first.
    """
    mine = model_status(status, attempt.model)
    start = Mark(
        pid=status.pid,
        model=attempt.model,
        release=attempt.release,
        stats=mine.stats if mine else LiveStats(),
    )
    return Watch(
        since=now,
        healthy_since=now,
        start=start,
        neighbours=neighbours,
        load=load.before(marks, status, now),
        load_start=load.read(status, now),
        worker_cpu_s=mine.worker_cpu_s if mine else 0.0,
    )


def judge(
    attempt: Attempt,
    quality: Quality | None,
    watch: Watch,
    status: ServingStatus | None,
    *,
    alive: bool,
    now: float,
) -> Healthy | Sick | Interrupted | Watching:
    """Judge one probe of the serving process.

    The release is Sick if its worker ended; if the process answers MISSED_PROBES times in a row
    without it; if its oldest request in flight is far older than the requests before took (see
    ``hang``); if it answers none of its requests, where the previous release did; if more than
    MAX_ERROR_RATIO of its requests fail, or are refused before it ran (see ``error_rate``), and
    more than of the last requests to the previous release on this device (see ``two_samples``); or
    if its mean top score is below that of the previous release by more than
    ``quality.max_confidence_drop``. The last needs ``quality.min_requests`` scores of both
    releases, and is left out without ``quality``. It is also Sick if another model on the device
    has more errors or far higher latencies than before the trial, and the CPU that the release uses
    is the cause. A release that would be Healthy is Sick if it costs far more than the previous one
    (see ``cost_trial``).

    The end of the serving process is not the fault of the release, which runs in a worker: it is
    Interrupted, and watched anew once it is served again.
    """
    mine = model_status(status, attempt.model)
    if mine is not None and mine.trial_ended:
        return Sick(Reason.CRASH, mine.trial_ended)
    if not alive or (status is not None and status.pid != watch.start.pid):
        return _never_healthy(attempt, watch, now) or INTERRUPTED
    if mine is None or not mine.ready or mine.release != attempt.release:
        missed = watch.missed + 1
        if missed >= limits.MISSED_PROBES and status is None:
            return _never_healthy(attempt, watch, now) or INTERRUPTED
        if missed >= limits.MISSED_PROBES:
            return Sick(
                Reason.CRASH, f"The serving process gave no valid answer {missed} times in a row."
            )
        return Watching(replace(watch, missed=missed, healthy_since=now))
    watch = replace(watch, memory=cost_figures.follow(watch.memory, now, mine.stats.process_kib))
    sick = (
        _errors(attempt, watch, mine)
        or _refusals(attempt, watch, mine)
        or _hung(attempt, mine)
        or _silent(attempt, watch, mine, now)
        or _confidence(attempt, quality, watch, mine)
    )
    if sick is not None:
        return sick
    harmed = None if status is None else _neighbours(watch, status)
    if harmed is not None and status is not None and load.blames(watch, status, now):
        return harmed
    if (
        now - watch.healthy_since >= attempt.confirm_after_s
        and not watch.missed
        and _has_answered(attempt, watch, mine, now)
    ):
        return _cost(attempt, watch, mine) or HEALTHY
    if sick := _never_healthy(attempt, watch, now):
        return sick
    if watch.missed:
        return Watching(replace(watch, missed=0, healthy_since=now))
    return Watching(watch)


def _longest_s(attempt: Attempt) -> float:
    """The longest time of the trial."""
    return limits.TRIAL_STRETCH * attempt.confirm_after_s + limits.TRIAL_SLACK_S


def _never_healthy(attempt: Attempt, watch: Watch, now: float) -> Sick | None:
    if now - watch.since > _longest_s(attempt):
        return Sick(
            Reason.CRASH,
            f"The release was never healthy for {attempt.confirm_after_s:g} s without a break.",
        )
    return None


def _errors(attempt: Attempt, watch: Watch, status: ModelStatus) -> Sick | None:
    requests = status.stats.requests - watch.start.stats.requests
    errors = status.stats.errors - watch.start.stats.errors
    known = attempt.incumbent
    before = (known.errors, known.requests) if known else None
    if not _is_worse((errors, requests), before):
        return None
    return Sick(
        Reason.ERRORS,
        f"{errors} of {requests} requests failed; {limits.MAX_ERROR_RATIO:.0%} are allowed."
        f"{_before(attempt, before)}",
    )


def _refusals(attempt: Attempt, watch: Watch, status: ModelStatus) -> Sick | None:
    """The requests that do not reach the model, although they reached the previous release."""
    stats, start = status.stats, watch.start.stats
    refused = stats.refused - start.refused
    asked = refused + stats.requests - start.requests
    known = attempt.incumbent
    before = (known.refused, known.refused + known.requests) if known else None
    if not _is_worse((refused, asked), before):
        return None
    kinds = {kind: count - start.refusals.get(kind, 0) for kind, count in stats.refusals.items()}
    most = max(sorted(kinds), key=lambda kind: kinds[kind], default="")
    kind = f" ({most} {kinds[most]})" if most else ""
    example = f": {stats.refusal_example}" if stats.refusal_example else ""
    return Sick(
        Reason.REFUSALS,
        f"{refused} of {asked} requests were refused before the model ran{kind}{example}; "
        f"{limits.MAX_ERROR_RATIO:.0%} are allowed.{_before(attempt, before)}",
    )


def _is_worse(now: tuple[int, int], before: tuple[int, int] | None) -> bool:
    """True if more than the limit are bad, and more than before the trial, if that is known.

    Each of the two tests errs with a probability of at most ERROR_ALPHA, so a release that is
    within the limit, or no worse than the one before, fails its trial so rarely by chance.
    """
    if not error_rate.is_too_high(*now):
        return False
    if before is None or not before[1]:
        return True
    return two_samples.log_evidence(before, now) >= -math.log(limits.ERROR_ALPHA)


def _before(attempt: Attempt, before: tuple[int, int] | None) -> str:
    if before is None or attempt.incumbent is None:
        return ""
    return f" Of release {attempt.incumbent.release}: {before[0]} of {before[1]}."


def _hung(attempt: Attempt, status: ModelStatus) -> Sick | None:
    age_s, limit_s = status.stats.oldest_in_flight_s, hang.limit_s(attempt.incumbent_us_p95)
    if age_s > limit_s:
        return Sick(
            Reason.HUNG,
            f"The oldest request has waited {age_s:.1f} s for its answer (limit {limit_s:g} s).",
        )
    return None


def _silent(attempt: Attempt, watch: Watch, status: ModelStatus, now: float) -> Sick | None:
    asked = _requests_in(watch, status)
    if attempt.incumbent_answers and asked and not _answers_in(watch, status):
        lasted_s = now - watch.since
        if lasted_s > _longest_s(attempt):
            return Sick(
                Reason.SILENT,
                f"The release answered none of {asked} requests in {lasted_s:.0f} s; the previous "
                f"release answered {attempt.incumbent_answers}.",
            )
    return None


def _has_answered(attempt: Attempt, watch: Watch, status: ModelStatus, now: float) -> bool:
    """Whether the release answers, as far as one can tell: it may be confirmed.

    A release that has no requests, although the previous one had them just before, is watched for
    longer. If none comes, nothing is known of it: the hub compares it with other devices.
    """
    unsettled_s = limits.UNSETTLED_SHARE * hang.limit_s(attempt.incumbent_us_p95)
    if status.stats.oldest_in_flight_s > unsettled_s:
        return False
    if not attempt.incumbent_answers or _answers_in(watch, status):
        return True
    longest_s = _longest_s(attempt)
    is_usual = attempt.incumbent_answers_s * longest_s < limits.SILENT_REQUESTS
    return not _requests_in(watch, status) and (is_usual or now - watch.since > longest_s)


def _answers_in(watch: Watch, status: ModelStatus) -> int:
    stats, start = status.stats, watch.start.stats
    return (stats.requests - stats.errors) - (start.requests - start.errors)


def _requests_in(watch: Watch, status: ModelStatus) -> int:
    """The requests since the activation: answered, failed, refused and in flight."""
    stats, start = status.stats, watch.start.stats
    counted = stats.requests + stats.refused - start.requests - start.refused
    return counted + stats.in_flight


def _confidence(
    attempt: Attempt, quality: Quality | None, watch: Watch, status: ModelStatus
) -> Sick | None:
    if quality is None:
        return None
    known, least = attempt.incumbent, max(1, quality.min_requests)
    count = status.stats.confidence_count - watch.start.stats.confidence_count
    if known is None or known.confidence_count < least or count < least:
        return None
    before = known.confidence_sum / known.confidence_count
    mean = (status.stats.confidence_sum - watch.start.stats.confidence_sum) / count
    fault = confidence_fault(before, mean, count, quality)
    return Sick(Reason.CONFIDENCE, fault) if fault else None


def confidence_fault(before: float, mean: float, count: int, quality: Quality) -> str:
    """The fault in the mean of ``count`` top scores, in words. Empty if there is none.

    ``before`` is the mean of the previous release.
    """
    least = before - quality.max_confidence_drop
    if mean >= least:
        return ""
    return (
        f"Mean confidence fell from {before:.3f} to {mean:.3f} over {counted(count, 'score')} "
        f"(limit {least:.3f})."
    )


def _cost(attempt: Attempt, watch: Watch, status: ModelStatus) -> Sick | None:
    """The cost that is far above that of the previous release. Judged at the end of the trial."""
    if detail := cost_trial.cpu(attempt, watch.start, status.stats):
        return Sick(Reason.CPU, detail)
    if detail := cost_trial.memory(attempt, watch.memory):
        return Sick(Reason.MEMORY_GROWTH, detail)
    return None


def _neighbours(watch: Watch, status: ServingStatus) -> Sick | None:
    """The first other model that got worse: compared with itself before the trial."""
    for neighbour in watch.neighbours:
        start, own = neighbour.start, model_status(status, neighbour.start.model)
        if own is None or own.release != start.release:
            continue
        after = window.since(start, status.pid, own)
        if after.requests < limits.NEIGHBOUR_REQUESTS:
            continue
        scores = window.compare(neighbour.before, after)
        more_errors, slower = scores.error_rate_delta, scores.latency_log_ratio
        if more_errors is not None and more_errors > limits.MAX_ERROR_RATIO:
            return Sick(
                Reason.NEIGHBOUR,
                f"The error rate of {start.model} rose by {more_errors:.1%} during the trial "
                f"(limit {limits.MAX_ERROR_RATIO:.0%}).",
            )
        if slower is not None and slower > math.log(limits.NEIGHBOUR_SLOWDOWN):
            return Sick(
                Reason.NEIGHBOUR,
                f"The p95 latency of {start.model} is {math.exp(slower):.1f} times that before the "
                f"trial (limit {limits.NEIGHBOUR_SLOWDOWN:g} times).",
            )
    return None
