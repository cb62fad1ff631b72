"""The figures of the previous release on a device, as they are just before a trial."""

from edgefleet.agent import cost_window
from edgefleet.agent import quality_window as window
from edgefleet.agent.state import active_release
from edgefleet.agent.step_context import StepContext
from edgefleet.agent.typed_replace import AttemptChanges
from edgefleet.protocol.serving import model_status


def before_trial(context: StepContext) -> AttemptChanges:
    """The fields of an attempt. Without a previous release, or with too few requests, defaults."""
    installed = active_release(context.state)
    status = model_status(context.device.soft.serving, context.model)
    if installed is None:
        return {"incumbent": None}
    soft, release = context.soft, installed.release
    growth_mib_h = cost_window.growth_mib_h(soft.costs, release)
    last = window.incumbent(soft.windows, release, growth_mib_h)
    if status is None or status.release != release:
        return {"incumbent": last}
    return {
        "incumbent": last,
        "incumbent_us_p95": status.stats.latency_us_p95,
        "incumbent_answers": status.stats.requests - status.stats.errors,
        "incumbent_answers_s": window.answers_s(soft.windows, release, context.now),
    }
