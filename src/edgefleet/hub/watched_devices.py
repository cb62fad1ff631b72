"""The figures in the check-ins of the devices that a person looks at.

A hub with a million devices cannot keep a history of each. It keeps that of the devices whose
figures were asked for last, from then on, in memory and bounded.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from edgefleet.base.limits import MODELS_PER_DEVICE
from edgefleet.hub.limits import FIGURES_KEPT, WATCHED_DEVICES
from edgefleet.protocol.device import Telemetry
from edgefleet.protocol.device_figures import DeviceFigures, FiguresPoint, ModelPoints
from edgefleet.rollout.evidence.sketch import Sketch


@dataclass(slots=True)
class _Watched:
    """One device, and its reports by model."""

    since: float
    models: dict[str, deque[FiguresPoint]] = field(default_factory=dict)


class WatchedDevices:
    """The devices that are looked at, the one that was asked for last at the end."""

    def __init__(self, most: int = WATCHED_DEVICES) -> None:
        self._most = most
        self._watched: OrderedDict[int, _Watched] = OrderedDict()

    def figures(self, row: int, name: str, now: float) -> DeviceFigures:
        """The figures of a device, which is watched from now on."""
        watched = self._watched.get(row)
        if watched is None:
            watched = self._watched[row] = _Watched(now)
            if len(self._watched) > self._most:
                self._watched.popitem(last=False)
        else:
            self._watched.move_to_end(row)
        return DeviceFigures(
            device=name,
            since=watched.since,
            models=tuple(
                ModelPoints(model=model, points=tuple(points))
                for model, points in sorted(watched.models.items())
            ),
        )

    def add(self, row: int, telemetry: Telemetry, now: float) -> None:
        """Keep the figures of a check-in if the device is watched."""
        watched = self._watched.get(row)
        if watched is None:
            return
        model = telemetry.model or ""
        points = watched.models.get(model)
        if points is None:
            if len(watched.models) >= MODELS_PER_DEVICE:
                return
            points = watched.models[model] = deque(maxlen=FIGURES_KEPT)
        points.append(_point(telemetry, points[-1].at if points else None, now))


def _point(telemetry: Telemetry, before: float | None, now: float) -> FiguresPoint:
    p50: int | None = telemetry.latency_us_p50 or None
    p95: int | None = telemetry.latency_us_p95 or None
    if telemetry.sketches is not None and telemetry.sketches.latency:
        sketch = Sketch()
        sketch.add(telemetry.sketches)
        p50, p95 = sketch.latency_us(0.50), sketch.latency_us(0.95)
    scored, requests = telemetry.confidence_count, telemetry.requests
    return FiguresPoint(
        at=now,
        release=telemetry.release,
        span_s=None if before is None or now <= before else now - before,
        requests=requests,
        errors=telemetry.errors,
        refused=telemetry.refused,
        latency_us_p50=p50 if requests else None,
        latency_us_p95=p95 if requests else None,
        confidence=telemetry.confidence_sum / scored if scored else None,
        cpu_us=telemetry.cpu_s * 1e6 / requests if requests and telemetry.cpu_s else None,
        memory_mib=telemetry.memory_mib,
    )
