"""The serving figures in a device's check-ins, as its page shows them."""

from edgefleet.protocol.wire import Wire


class FiguresPoint(Wire, frozen=True, kw_only=True):
    """One report: what was served since the report before it.

    ``at`` is the hub's time of receipt, in seconds since 1970. ``span_s`` is the time since the
    model's report before it; None for the first, whose rate is not known. Latencies are in
    microseconds, those of the requests of this report where the device sends its histogram, else
    those since the release was loaded. ``cpu_us`` is CPU time of a request. None: not known.
    """

    at: float
    release: str
    span_s: float | None
    requests: int
    errors: int
    refused: int
    latency_us_p50: int | None
    latency_us_p95: int | None
    confidence: float | None  # mean of the top scores
    cpu_us: float | None
    memory_mib: int


class ModelPoints(Wire, frozen=True, kw_only=True):
    """The last reports of one model, oldest first. The name is empty if the agent sends none."""

    model: str
    points: tuple[FiguresPoint, ...]


class DeviceFigures(Wire, frozen=True, kw_only=True):
    """The reports that arrived since ``since``, when a person first asked for this device.

    The hub keeps them in memory, for the devices that were asked for last.
    """

    device: str
    since: float
    models: tuple[ModelPoints, ...]
