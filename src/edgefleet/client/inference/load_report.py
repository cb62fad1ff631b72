"""The measurements of a load: a value for JSON, and its text for people."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from edgefleet.client.inference.latencies import Bar, Latencies, duration_text, picture
from edgefleet.protocol.wire import Wire

_BUSY = 0.9  # of a core


class LatencyReport(Wire, frozen=True, kw_only=True):
    """Latencies of the answers with status 200, in microseconds."""

    min: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: int = 0


class LoadReport(Wire, frozen=True, kw_only=True):
    """The result of ``edgefleet bench``.

    ``latency_us`` of an open loop begins when the request was due, whether or not a connection was
    free to send it; ``service_us`` begins when it was sent. In a closed loop both are equal.
    ``refusal_us`` is that of answers with another status, from the time when they were sent.
    ``errors`` are counted by code. ``not_sent`` requests were due before the end of an open loop,
    but every connection was busy. ``without_retry_after`` answers had status 429 or 503 and did not
    say when to retry. ``client_cpu`` is the share of a core that the load itself used.
    """

    model: str
    release: str
    mode: Literal["closed", "open"]
    connections: int
    rate: float | None = None
    elapsed_s: float
    requests: int
    succeeded: int
    errors: Mapping[str, int] = msgspec.field(default_factory=dict)
    not_sent: int = 0
    without_retry_after: int = 0
    per_second: float = 0.0
    request_bytes: int = 0
    answer_bytes: int = 0
    client_cpu: float = 0.0
    latency_us: LatencyReport = LatencyReport()
    service_us: LatencyReport = LatencyReport()
    refusal_us: LatencyReport = LatencyReport()
    histogram: tuple[Bar, ...] = ()


def latency_report(found: Latencies) -> LatencyReport:
    return LatencyReport(
        min=found.min_us,
        mean=round(found.mean_us(), 1),
        p50=found.quantile_us(0.50),
        p90=found.quantile_us(0.90),
        p95=found.quantile_us(0.95),
        p99=found.quantile_us(0.99),
        p999=found.quantile_us(0.999),
        max=found.max_us,
    )


def load_lines(report: LoadReport) -> list[str]:
    """The report as text."""
    if report.mode == "open":
        load = f"open loop, {report.rate:g} requests a second, {report.connections} connections"
    else:
        load = f"closed loop, {report.connections} connections"
    lines = [
        f"model       {report.model}, release {report.release or '-'}",
        f"load        {load}, {report.elapsed_s:.1f} s",
        f"requests    {report.requests}, {report.succeeded} succeeded",
        f"throughput  {report.per_second:.1f} a second",
        f"bytes       {report.request_bytes} a request, {report.answer_bytes} an answer",
    ]
    if report.not_sent:
        lines.append(f"not sent    {report.not_sent} were due, but every connection was busy")
    if report.errors:
        counted = sorted(report.errors.items(), key=lambda one: (-one[1], one[0]))
        lines.append("errors      " + ", ".join(f"{code} {count}" for code, count in counted))
    if report.client_cpu > _BUSY:
        lines.append(
            f"load CPU    {100 * report.client_cpu:.0f} % of a core: it may itself be the limit"
        )
    if not report.succeeded:
        return lines
    lines += ["", *_latency_lines(report), "", *picture(report.histogram)]
    return lines


def _latency_lines(report: LoadReport) -> list[str]:
    names = ("min", "mean", "p50", "p90", "p95", "p99", "p999", "max")
    rows = [("latency", report.latency_us)]
    if report.mode == "open":
        rows.append(("from sent", report.service_us))
    titles = ("p99.9" if name == "p999" else name for name in names)
    lines = [" " * 12 + "".join(title.rjust(9) for title in titles)]
    for title, row in rows:
        cells = (duration_text(getattr(row, name)).rjust(9) for name in names)
        lines.append(title.ljust(12) + "".join(cells))
    return lines
