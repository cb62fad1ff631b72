"""Telemetry: the requests since the last acknowledged check-in, by release.

Requests that a release refused are reported also if it served none.

The counters of the serving process start at 0 after every activation and every restart. A mark
stores the last reading, and only the growth since the mark is added.
"""

from collections.abc import Mapping

from edgefleet.agent import limits
from edgefleet.agent import sketch_math as bins
from edgefleet.agent.state import Mark
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.device import Sketches, Telemetry
from edgefleet.protocol.serving import LiveStats, ModelStatus


def fold(
    tallies: tuple[Telemetry, ...], pid: int, status: ModelStatus, grown: LiveStats
) -> tuple[tuple[Telemetry, ...], Mark]:
    """Add the growth since the last mark. Returns the tallies and the new mark.

    ``pid`` is the serving process, which has the counters of all models.
    """
    stats = status.stats
    new = Mark(pid=pid, model=status.model, release=status.release, stats=stats)
    if grown.requests == 0 and grown.confidence_count == 0 and grown.refused == 0:
        return tallies, new
    kept = [tally for tally in tallies if tally.release != status.release]
    old = next((tally for tally in tallies if tally.release == status.release), None)
    kept.append(
        Telemetry(
            release=status.release,
            requests=grown.requests + (old.requests if old else 0),
            errors=grown.errors + (old.errors if old else 0),
            confidence_sum=grown.confidence_sum + (old.confidence_sum if old else 0.0),
            confidence_count=grown.confidence_count + (old.confidence_count if old else 0),
            latency_us_p50=stats.latency_us_p50,
            latency_us_p95=stats.latency_us_p95,
            memory_mib=stats.memory_mib,
            sketches=_more(old, grown.sketches),
            cpu_s=grown.cpu_s + (old.cpu_s if old else 0.0),
            refused=grown.refused + (old.refused if old else 0),
            refusals=_sum(old.refusals if old else {}, grown.refusals),
            refusal_example=grown.refusal_example or (old.refusal_example if old else ""),
        )
    )
    return tuple(kept[-limits.TALLIES :]), new


def nothing_served(release: str) -> Telemetry:
    """The telemetry of a release without requests."""
    return Telemetry(
        release=release,
        requests=0,
        errors=0,
        confidence_sum=0.0,
        confidence_count=0,
        latency_us_p50=0,
        latency_us_p95=0,
        memory_mib=0,
    )


def add_failed(tallies: tuple[Telemetry, ...], release: str, failed: int) -> tuple[Telemetry, ...]:
    """Add requests to ``release`` that failed with its process, which counted them no more."""
    kept = [tally for tally in tallies if tally.release != release]
    old = next((tally for tally in tallies if tally.release == release), nothing_served(release))
    kept.append(replace(old, requests=old.requests + failed, errors=old.errors + failed))
    return tuple(kept[-limits.TALLIES :])


def subtract(tallies: tuple[Telemetry, ...], sent: Telemetry) -> tuple[Telemetry, ...]:
    """``tallies`` without the acknowledged telemetry. Requests since the report are kept."""
    left: list[Telemetry] = []
    for tally in tallies:
        if tally.release != sent.release:
            left.append(tally)
        elif tally.asked > sent.asked:
            left.append(
                replace(
                    tally,
                    requests=max(0, tally.requests - sent.requests),
                    errors=max(0, tally.errors - sent.errors),
                    confidence_sum=max(0.0, tally.confidence_sum - sent.confidence_sum),
                    confidence_count=max(0, tally.confidence_count - sent.confidence_count),
                    sketches=None
                    if tally.sketches is None
                    else bins.minus(tally.sketches, sent.sketches or Sketches()),
                    cpu_s=max(0.0, tally.cpu_s - sent.cpu_s),
                    refused=max(0, tally.refused - sent.refused),
                    refusals=_less(tally.refusals, sent.refusals),
                )
            )
    return tuple(left)


def growth(mark: Mark | None, pid: int, status: ModelStatus) -> LiveStats:
    """The requests served since ``mark``. All requests if the counters have started again."""
    stats = status.stats
    if (
        mark is None
        or (mark.pid, mark.model, mark.release) != (pid, status.model, status.release)
        or stats.requests < mark.stats.requests
        or stats.refused < mark.stats.refused
        or stats.confidence_count < mark.stats.confidence_count
    ):
        return stats
    return LiveStats(
        requests=stats.requests - mark.stats.requests,
        errors=max(0, stats.errors - mark.stats.errors),
        confidence_sum=max(0.0, stats.confidence_sum - mark.stats.confidence_sum),
        confidence_count=stats.confidence_count - mark.stats.confidence_count,
        sketches=bins.minus(stats.sketches, mark.stats.sketches),
        cpu_s=max(0.0, stats.cpu_s - mark.stats.cpu_s),
        refused=stats.refused - mark.stats.refused,
        refusals=_less(stats.refusals, mark.stats.refusals),
        refusal_example=stats.refusal_example,
    )


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {kind: one.get(kind, 0) + other.get(kind, 0) for kind in sorted({*one, *other})}


def _less(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    left = {kind: count - other.get(kind, 0) for kind, count in one.items()}
    return {kind: count for kind, count in left.items() if count > 0}


def _more(old: Telemetry | None, sketches: Sketches) -> Sketches | None:
    """The sum of the sketches. None if the serving process has no sketches."""
    if old is not None and old.sketches is not None:
        return bins.plus(old.sketches, sketches)
    return sketches if sketches != Sketches() else None
