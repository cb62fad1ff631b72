"""The figures of the previous release on a device, as they are just before a trial."""

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
    windows = context.soft.windows
    last = window.incumbent(windows, installed.release)
    if status is None or status.release != installed.release:
        return {"incumbent": last}
    return {
        "incumbent": last,
        "incumbent_us_p95": status.stats.latency_us_p95,
        "incumbent_answers": status.stats.requests - status.stats.errors,
        "incumbent_answers_s": window.answers_s(windows, installed.release, context.now),
    }
