"""Whether a release in trial costs far more than the one before it: CPU time, and memory.

Judged once, when the trial would end well, over the whole trial: the first requests of a release
are slow, and the noise of all others is averaged. The limits are those of the plan, with a margin.
An offer of an older hub has none; then the trial does not judge cost.
"""

from edgefleet.agent import limits
from edgefleet.agent.cost_figures import Trend, growth_mib_h
from edgefleet.agent.state import Attempt, Mark
from edgefleet.base.texts import counted
from edgefleet.protocol.serving import LiveStats


def cpu(attempt: Attempt, start: Mark, stats: LiveStats) -> str:
    """The fault in the CPU time of a request, in words. Empty if there is none, or it is not known.

    The previous release is measured by its last requests on this device. The same work takes up to
    a third more or less CPU time with another clock rate or colder caches, so the limit has a
    margin; and a small absolute growth never counts.
    """
    known, allowed = attempt.incumbent, attempt.max_cpu_increase
    requests = stats.requests - start.stats.requests
    used_s = stats.cpu_s - start.stats.cpu_s
    if known is None or allowed is None:
        return ""
    before = known.cpu_s, known.cpu_requests
    return cpu_fault(known.release, before, (used_s, requests), allowed)


def cpu_fault(
    release: str, before: tuple[float, int], after: tuple[float, int], allowed: float
) -> str:
    """The fault in the CPU time of a request, in words. Empty if there is none.

    ``before`` and ``after`` are CPU seconds and requests, those before of ``release``. It is not
    judged below COST_REQUESTS of either.
    """
    (before_s, before_requests), (after_s, requests) = before, after
    if after_s <= 0 or before_s <= 0 or min(requests, before_requests) < limits.COST_REQUESTS:
        return ""
    before_us, after_us = 1e6 * before_s / before_requests, 1e6 * after_s / requests
    most_us = before_us * (1 + allowed) * limits.COST_MARGIN
    if after_us <= most_us or after_us - before_us < limits.COST_LEAST_US:
        return ""
    return (
        f"CPU time of a request rose from {before_us:.0f} us to {after_us:.0f} us over "
        f"{counted(requests, 'request')} (limit {most_us:.0f} us). Of release {release}: "
        f"{counted(before_requests, 'request')}."
    )


def memory(attempt: Attempt, trend: Trend) -> str:
    """The fault in the memory of the worker, in words. Empty if there is none, or it is not known.

    The first quarter of the trial is left out, as memory grows until the model is warm.
    """
    allowed = attempt.max_memory_growth_mib_h
    if allowed is None or not trend.samples:
        return ""
    began, ended = trend.samples[0][0], trend.samples[-1][0]
    samples = tuple(one for one in trend.samples if one[0] >= began + (ended - began) / 4)
    growth = growth_mib_h(samples)
    if growth is None:
        return ""
    lasted_h = (ended - samples[0][0]) / 3600
    before = 0.0 if attempt.incumbent is None else max(0.0, attempt.incumbent.memory_mib_h)
    if growth <= allowed + before or growth * lasted_h < limits.GROWTH_LEAST_MIB:
        return ""
    return (
        f"The memory of its process grew steadily by {growth:.0f} MiB an hour, "
        f"{growth * lasted_h:.0f} MiB so far (limit {allowed + before:.0f} MiB an hour)."
    )
