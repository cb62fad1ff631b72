"""Judges the health of a release in trial, from serving figures alone."""

import math
from dataclasses import dataclass
from typing import Final

from edgefleet.agent import error_rate, limits, load
from edgefleet.agent import quality_window as window
from edgefleet.agent.state import Attempt, LoadMark, Mark, Neighbour, Watch
from edgefleet.agent.typed_replace import replace
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
    without it; if its error ratio is above MAX_ERROR_RATIO (see ``error_rate``); or if its mean top
    score is below that of the previous release on this device by more than
    ``quality.max_confidence_drop``. The last needs ``quality.min_requests`` scores of both
    releases, and is left out without ``quality``. It is also Sick if another model on the device
    has more errors or far higher latencies than before the trial, and the CPU that the release uses
    is the cause.

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
    if sick := _errors(watch, mine) or _confidence(attempt, quality, watch, mine):
        return sick
    harmed = None if status is None else _neighbours(watch, status)
    if harmed is not None and status is not None and load.blames(watch, status, now):
        return harmed
    if now - watch.healthy_since >= attempt.confirm_after_s and not watch.missed:
        return HEALTHY
    if sick := _never_healthy(attempt, watch, now):
        return sick
    if watch.missed:
        return Watching(replace(watch, missed=0, healthy_since=now))
    return Watching(watch)


def _never_healthy(attempt: Attempt, watch: Watch, now: float) -> Sick | None:
    if now - watch.since > limits.TRIAL_STRETCH * attempt.confirm_after_s + limits.TRIAL_SLACK_S:
        return Sick(
            Reason.CRASH,
            f"The release was never healthy for {attempt.confirm_after_s:g} s without a break.",
        )
    return None


def _errors(watch: Watch, status: ModelStatus) -> Sick | None:
    requests = status.stats.requests - watch.start.stats.requests
    errors = status.stats.errors - watch.start.stats.errors
    if error_rate.is_too_high(errors, requests):
        return Sick(
            Reason.ERRORS,
            f"{errors} of {requests} requests failed; {limits.MAX_ERROR_RATIO:.0%} are allowed.",
        )
    return None


def _confidence(
    attempt: Attempt, quality: Quality | None, watch: Watch, status: ModelStatus
) -> Sick | None:
    before = attempt.incumbent_confidence
    if quality is None:
        return None
    count = status.stats.confidence_count - watch.start.stats.confidence_count
    if before is None or count < quality.min_requests or count <= 0:
        return None
    mean = (status.stats.confidence_sum - watch.start.stats.confidence_sum) / count
    if mean < before - quality.max_confidence_drop:
        return Sick(
            Reason.CONFIDENCE,
            f"Mean confidence fell from {before:.3f} to {mean:.3f} over {count} scores "
            f"(limit {before - quality.max_confidence_drop:.3f}).",
        )
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
