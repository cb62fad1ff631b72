"""The figures on the page of a device: counters since each release was loaded, as one JSON object.

The browser computes rates and quantiles from the difference of two of them, so the process keeps no
history, and a page that nobody has open costs nothing.
"""

import time
from collections.abc import Iterable

import msgspec

from edgefleet import __version__
from edgefleet.base.cgroup import memory_room
from edgefleet.protocol.bins import CLASS_BINS, upper_edge_us
from edgefleet.protocol.labels import ReleaseLabels
from edgefleet.serving.active_release import Release
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.stats import memory_kib


class MemoryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes in use under the memory limit that is reached first: ``cgroup`` or ``machine``."""

    place: str
    used_bytes: int
    limit_bytes: int


class ModelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One model. All but ``memory_bytes``, ``in_flight`` and the ages are counters.

    ``latency_us`` has pairs: the exclusive upper edge of a bucket in microseconds, and its count.
    ``refused`` counts by ``protocol.device.Refusal``. ``worker`` is the pid of its own process.
    ``labelled`` answers have a label, ``correct`` ones the right one. ``cpu_s`` and ``queue_s`` are
    sums of seconds: CPU of the inferences, and waiting of the requests. ``classes`` has pairs: a
    class, by its name or number, and how often it had the highest score. It is empty for a model
    with more classes than are counted apart.
    """

    model: str
    release: str
    on_trial: bool
    runtime: str
    profile: str
    precision: str
    worker: int | None
    memory_bytes: int
    requests: int
    items: int
    runs: int
    errors: int
    refused: dict[str, int]
    in_flight: int
    oldest_in_flight_s: float
    last_answer_s: float | None
    cpu_s: float
    queue_s: float
    latency_us: list[tuple[int, int]]
    latency_sum_us: int
    confidence_sum: float
    confidence_count: int
    labelled: int
    correct: int
    classes: list[tuple[str, int]]


class PageFigures(msgspec.Struct, frozen=True, kw_only=True):
    """``at`` is the time in seconds of a clock that only rises, for differences.

    ``unserved`` are models of the device that no release answers now.
    """

    at: float
    version: str
    generation: int
    process_bytes: int
    memory: MemoryFigures | None
    models: list[ModelFigures]
    unserved: list[str]


def figures(host: ModelHost) -> PageFigures:
    """The figures of all models that answer."""
    room = memory_room()
    report = host.answers.report()
    labels = {
        (one.model, each.release): each
        for one in (() if report is None else report.models)
        for each in one.releases
    }
    routes = host.routes.values()
    return PageFigures(
        at=round(time.monotonic(), 3),
        version=__version__,
        generation=host.generation,
        process_bytes=_serving_kib(routes) << 10,
        memory=None
        if room is None
        else MemoryFigures(
            place=room.place, used_bytes=room.used_bytes, limit_bytes=room.limit_bytes
        ),
        models=[_of(host, one, labels.get((one.model, one.release))) for one in routes],
        unserved=host.unserved(),
    )


def _serving_kib(routes: Iterable[Release]) -> int:
    """Resident memory of this process and of the workers, in KiB."""
    return memory_kib() + sum(memory_kib(one.worker) for one in routes if one.worker is not None)


def _of(host: ModelHost, active: Release, labels: ReleaseLabels | None) -> ModelFigures:
    stats, variant = active.stats, active.wanted.variant
    return ModelFigures(
        model=active.model,
        release=active.release,
        on_trial=host.on_trial(active.model),
        runtime=variant.runtime,
        profile=variant.profile,
        precision=variant.precision,
        worker=active.worker,
        memory_bytes=host.memory_kib(active) << 10,
        requests=stats.requests,
        items=stats.durations.items,
        runs=stats.durations.runs,
        errors=stats.errors,
        refused=dict(stats.refused),
        in_flight=stats.in_flight,
        oldest_in_flight_s=round(stats.oldest_in_flight_s(), 3),
        last_answer_s=None
        if stats.answered_at is None
        else round(time.monotonic() - stats.answered_at, 3),
        cpu_s=stats.cpu_ns / 1e9,
        queue_s=stats.durations.queue_ns / 1e9,
        latency_us=[
            (upper_edge_us(index), count)
            for index, count in enumerate(stats.latency.counts)
            if count
        ],
        latency_sum_us=stats.latency.sum_us,
        confidence_sum=stats.confidence_sum,
        confidence_count=stats.confidence_count,
        labelled=0 if labels is None else labels.labelled,
        correct=0 if labels is None else labels.correct,
        classes=_classes(active),
    )


def _classes(active: Release) -> list[tuple[str, int]]:
    quality = active.wanted.quality
    sizes = {spec.name: spec.shape[-1] for spec in active.outputs if spec.shape}
    count = 0 if quality is None else sizes.get(quality.output, 0)
    if quality is None or not 0 < count <= CLASS_BINS:
        return []
    names = active.classes.get(quality.output) or [f"class {at}" for at in range(count)]
    return list(zip(names, active.stats.classes, strict=False))
