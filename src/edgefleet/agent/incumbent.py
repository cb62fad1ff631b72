"""The figures of the previous release on a device, as they are just before a trial."""

from edgefleet.agent import cost_window, limits
from edgefleet.agent import quality_window as window
from edgefleet.agent.state import Incumbent, active_release
from edgefleet.agent.step_context import StepContext
from edgefleet.agent.typed_replace import AttemptChanges
from edgefleet.protocol.serving import ModelStatus, model_status


def before_trial(context: StepContext) -> AttemptChanges:
    """The fields of an attempt. Without a previous release, or with too few requests, defaults.

    The requests are the last ones, or all to the release in this process if this agent saw too few
    of them: an agent that is started again must not try a release without anything to compare with.
    """
    installed = active_release(context.state)
    status = model_status(context.device.soft.serving, context.model)
    if installed is None:
        return {"incumbent": None}
    soft, release = context.soft, installed.release
    growth_mib_h = cost_window.growth_mib_h(soft.costs, release)
    last = window.incumbent(soft.windows, release, growth_mib_h)
    if status is None or status.release != release:
        return {"incumbent": last if _suffices(last) else None}
    if last.requests + last.refused < limits.WINDOW_REQUESTS:
        last = _all(status, growth_mib_h)  # an agent that has just started saw too few
    return {
        "incumbent": last if _suffices(last) else None,
        "incumbent_us_p95": status.stats.latency_us_p95,
        "incumbent_answers": status.stats.requests - status.stats.errors,
        "incumbent_answers_s": window.answers_s(soft.windows, release, context.now),
    }


def _all(status: ModelStatus, growth_mib_h: float) -> Incumbent:
    """All requests since the release was loaded in the serving process, its warm-up included."""
    stats = status.stats
    return Incumbent(
        release=status.release,
        requests=stats.requests,
        errors=stats.errors,
        refused=stats.refused,
        confidence_sum=stats.confidence_sum,
        confidence_count=stats.confidence_count,
        cpu_s=stats.cpu_s,
        cpu_requests=stats.requests if stats.cpu_s else 0,
        memory_mib_h=growth_mib_h,
    )


def _suffices(figures: Incumbent) -> bool:
    """Whether the requests are enough to compare with them."""
    return figures.requests + figures.refused >= limits.WINDOW_LEAST_REQUESTS
