"""The figures of the confirmed release just before a trial, with which the trial is compared."""

from edgefleet.agent import quality_window as window
from edgefleet.agent.state import active_release
from edgefleet.agent.step_context import StepContext
from edgefleet.agent.typed_replace import AttemptChanges
from edgefleet.protocol.serving import LiveStats, model_status


def before_trial(context: StepContext) -> AttemptChanges:
    """The fields of the attempt that describe the confirmed release."""
    stats, installed = _stats(context), active_release(context.state)
    answers_s = 0.0
    if installed is not None:
        answers_s = window.answers_s(context.soft.windows, installed.release, context.now)
    return AttemptChanges(
        incumbent_confidence=_confidence(context, stats),
        incumbent_us_p95=0 if stats is None else stats.latency_us_p95,
        incumbent_answers=0 if stats is None else stats.requests - stats.errors,
        incumbent_answers_s=answers_s,
    )


def _stats(context: StepContext) -> LiveStats | None:
    """The counters of the active release. None if it is not served."""
    installed = active_release(context.state)
    status = model_status(context.device.soft.serving, context.model)
    if installed is None or status is None or status.release != installed.release:
        return None
    return status.stats


def _confidence(context: StepContext, stats: LiveStats | None) -> float | None:
    """Mean top score of the active release. None with too few scores."""
    candidate = context.attempt.installed
    if stats is None or candidate is None:
        return None
    if stats.confidence_count < max(1, candidate.quality.min_requests):
        return None
    return stats.confidence_sum / stats.confidence_count
