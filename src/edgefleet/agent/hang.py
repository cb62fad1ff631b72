"""Requests that do not end: for how long a device waits for the oldest one, and how it lets go.

The age of the oldest request in flight is compared with the latencies that the device has seen: of
the previous release for a release in trial, of the release itself for a confirmed one. A release in
a worker is ended there by the serving process. One in the shared process is moved into a worker; if
its request does not let go of the shared process after that, the process is started again.
"""

from edgefleet.agent import isolation, limits
from edgefleet.agent.state import active_release
from edgefleet.agent.step_context import DeviceContext
from edgefleet.protocol.serving import ModelStatus, ServingStatus


def limit_s(latency_us_p95: int) -> float:
    """The largest age of a request on a device whose requests took so long. 0 is not known."""
    if latency_us_p95 <= 0:
        return limits.HUNG_MOST_S
    usual_s = limits.HUNG_TIMES * latency_us_p95 / 1e6
    return min(limits.HUNG_MOST_S, max(limits.HUNG_LEAST_S, usual_s))


def isolate_hung(device: DeviceContext, status: ServingStatus) -> bool:
    """Move confirmed releases that hang in the shared process into workers. True if one does."""
    hung = [own for own in status.models if _hangs(device, own)]
    for own in hung:
        isolation.on_hung(device, own)
    return bool(hung)


def _hangs(device: DeviceContext, own: ModelStatus) -> bool:
    state = device.models.get(own.model)
    installed = None if state is None else active_release(state)
    return (
        installed is not None
        and own.release == installed.release
        and own.worker is None
        and own.stats.oldest_in_flight_s > limit_s(own.stats.latency_us_p95)
        and not isolation.is_isolated(device, own.model)
    )


def is_stuck(status: ServingStatus) -> bool:
    """True if only the end of the shared process ends a request of a release that is taken out."""
    return any(one.for_s > limits.STUCK_S for one in status.stuck)
