"""The table of metrics: every quality and health figure that a gate compares, one record each.

The plan checks, the cohorts, the gate, the command line, the page and the documentation read the
records. A new metric is a record here, its bound in ``Bounds``, and the place that measures it.
"""

import math
from functools import lru_cache
from typing import Final

from edgefleet.protocol import metric_bounds as bounds
from edgefleet.protocol.bins import LATENCY_BUCKETS, lower_edge_us
from edgefleet.protocol.device import Reason, Scores, Telemetry
from edgefleet.protocol.metric_bounds import Bound, Unit
from edgefleet.protocol.metric_kinds import (
    ChangeMetric,
    Direction,
    Figure,
    LimitMetric,
    Metric,
    RateMetric,
)

NEAR_ZERO: Final = 0.95
"""A fall of the requests by this share is a fall to near zero: the clients have left."""


def _fall(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _fell_to_near_zero(scores: Scores) -> float | None:
    """1 if nearly all requests of a device have gone, else 0. None if the rates are not known."""
    change = scores.request_rate_change
    return None if change is None else float(change <= -NEAR_ZERO)


_CHANGED: Final = "{amount} against the control (limit {allowed}; {pairs} pairs of devices)."
_COSTS: Final = "scores of windows of ten minutes"
_ABOVE: Final = "{above} of {devices} devices have "
_ABOVE_SHARE: Final = ", {share} of devices allowed."

ERRORS: Final = RateMetric(
    key="errors", label="Failed devices", unit=Unit.SHARE, bound=bounds.ERROR_RATE,
    reason="error_rate", source="outcomes; silence after activating counts",
    sentence="{bad} of {size} devices failed ({rate}{trial}), {allowed} allowed.",
    meaning="more than `max_error_rate` of the devices fail",
)  # fmt: skip
SILENCE: Final = RateMetric(
    key="silence", label="Silent devices", unit=Unit.SHARE, bound=bounds.SILENT_RATE,
    reason="silent", source="time since the last check-in",
    sentence="{bad} of {size} devices are silent after activating the release, {allowed} allowed.",
    meaning="more than `max_silent_rate` of the devices are silent after activating",
)  # fmt: skip
RATES: Final[tuple[RateMetric, ...]] = (ERRORS, SILENCE)

LABELLED_ACCURACY: Final = ChangeMetric(
    key="labelled_accuracy", label="Labelled accuracy", unit=Unit.SHARE,
    bound=bounds.LABELLED_ACCURACY_DROP,
    direction=Direction.FALL, cutoff=0.1,
    needs_requests=False,  # each comparison has 16 labels or more on both sides
    of_labels=True,
    reason="labelled_accuracy_drop", source="counts of labelled answers, by release",
    sentence="The accuracy by labels that came late fell by {amount} against the previous release "
    "(limit {allowed}; {pairs} comparisons of devices).",
    meaning="the accuracy by late labels falls by more than `max_labelled_accuracy_drop`",
)  # fmt: skip

CHANGES: Final[tuple[ChangeMetric, ...]] = (
    ChangeMetric(
        key="latency", label="Latency, p95", unit=Unit.RATIO, bound=bounds.LATENCY_INCREASE,
        direction=Direction.RISE, relative=True, cutoff=0.5,  # of the logarithm: 1.65 times
        reason="latency", source="scores",
        sentence="The 95th percentile of latency grew by " + _CHANGED,
        meaning="p95 grows by more than `max_latency_increase` against the control",
        scored=lambda scores: scores.latency_log_ratio,
        figure=Figure(Unit.MICROSECONDS, lambda side: side.latency_us_p95),
    ),
    ChangeMetric(
        key="request_errors", label="Request errors", unit=Unit.SHARE, bound=0.02,
        direction=Direction.RISE, cutoff=0.2,
        reason="request_errors", source="scores",
        sentence="The share of failed requests grew by " + _CHANGED,
        meaning="the share of failed requests grows by more than 2 points against the control",
        scored=lambda scores: scores.error_rate_delta,
        figure=Figure(Unit.SHARE, lambda side: side.error_share),
    ),
    ChangeMetric(
        key="refusals", label="Refused requests", unit=Unit.SHARE, bound=0.02,
        direction=Direction.RISE, cutoff=0.2,
        needs_requests=False,  # a release that refuses every request serves none
        reason="refusals", source="scores",
        sentence="The share of requests that were refused before the release ran grew by "
        + _CHANGED,
        meaning="the share of requests that are refused before the release runs grows by more than "
        "2 points against the control",
        cause=lambda side: side.refusal_cause,
        scored=lambda scores: scores.refusal_rate_delta,
        figure=Figure(Unit.SHARE, lambda side: side.refusal_share),
    ),
    ChangeMetric(
        key="confidence", label="Mean confidence", unit=Unit.NUMBER, bound=bounds.CONFIDENCE_DROP,
        direction=Direction.FALL, cutoff=0.3,
        reason="confidence_drop", source="scores",
        sentence="Mean confidence fell by " + _CHANGED,
        meaning="mean top score falls by more than `max_confidence_drop` against the control",
        scored=lambda scores: scores.confidence_delta,
        figure=Figure(Unit.NUMBER, lambda side: side.confidence_mean),
    ),
    ChangeMetric(
        key="accuracy", label="Golden accuracy", unit=Unit.SHARE, bound=bounds.ACCURACY_DROP,
        direction=Direction.FALL, cutoff=0.1, needs_requests=False,
        reason="accuracy_drop", source="confirmations; the same golden set on the same device",
        sentence="Golden accuracy fell by {amount} against the previous release (limit {allowed}; "
        "{pairs} devices).",
        meaning="golden accuracy falls by more than `max_accuracy_drop`",
        confirmed=lambda outcome: _fall(outcome.accuracy_before, outcome.accuracy),
    ),
    LABELLED_ACCURACY,
    ChangeMetric(
        key="classes", label="Drift of classes", unit=Unit.NUMBER, bound=bounds.DRIFT,
        direction=Direction.RISE, cutoff=0.5,
        reason="drift", source="scores",
        sentence="The class histogram of devices drifted by " + _CHANGED,
        meaning="the class histogram changes by more than `max_drift` beyond the control's",
        scored=lambda scores: scores.class_drift,
    ),
    ChangeMetric(
        key="inputs", label="Drift of inputs", unit=Unit.NUMBER, bound=bounds.DRIFT,
        direction=Direction.RISE, cutoff=0.5,
        reason="drift", source="scores",
        sentence="The input histogram of devices drifted by " + _CHANGED,
        meaning="the input histogram changes by more than `max_drift` beyond the control's",
        scored=lambda scores: scores.input_drift,
    ),
    ChangeMetric(
        key="requests", label="Requests per device", unit=Unit.SHARE, bound=bounds.REQUEST_DROP,
        direction=Direction.FALL, relative=True, cutoff=1.0,
        needs_requests=False,  # a lack of requests is the fault; the window before has 20 or more
        reason="request_drop", source="scores",
        sentence="Requests per device fell by " + _CHANGED,
        meaning="requests per second fall by more than `max_request_drop` against the control",
        scored=lambda scores: scores.request_rate_change,
    ),
    ChangeMetric(
        key="silent_clients", label="Devices that clients left", unit=Unit.SHARE, bound=0.1,
        direction=Direction.RISE, cutoff=1.0, needs_requests=False,
        reason="request_drop", source="scores",
        sentence="The share of devices whose requests fell to near zero grew by " + _CHANGED,
        meaning="requests per second fall by 95 % or more on 10 points more of the devices than in "
        "the control",
        scored=_fell_to_near_zero,
    ),
    ChangeMetric(
        key="cpu", label="CPU time per request", unit=Unit.RATIO, bound=bounds.CPU_INCREASE,
        direction=Direction.RISE, relative=True, cutoff=0.8,  # of the logarithm: 2.2 times
        reason=Reason.CPU.value, source="scores",
        sentence="The CPU time of a request grew by " + _CHANGED,
        meaning="the CPU time of a request grows by more than `max_cpu_increase` against the "
        "control",
        scored=lambda scores: scores.cpu_log_ratio,
        figure=Figure(Unit.MICROSECONDS, lambda side: side.cpu_us),
    ),
    ChangeMetric(
        key="memory_growth", label="Memory growth", unit=Unit.MIB_PER_HOUR,
        bound=bounds.MEMORY_GROWTH,
        direction=Direction.RISE, cutoff=60.0, needs_requests=False,
        reason=Reason.MEMORY_GROWTH.value, source=_COSTS,
        sentence="The memory of the serving process grew steadily by " + _CHANGED,
        meaning="the memory of the serving process grows steadily by "
        "`max_memory_growth_mib_h` more than in the control",
        scored=lambda scores: scores.memory_growth_delta,
    ),
    ChangeMetric(
        key="temperature", label="Temperature", unit=Unit.CELSIUS, bound=bounds.TEMPERATURE_RISE,
        direction=Direction.RISE, cutoff=15.0, needs_requests=False,
        reason="temperature", source=_COSTS,
        sentence="The temperature of boards rose by " + _CHANGED,
        meaning="the temperature of boards rises by more than `max_temperature_rise` against the "
        "control",
        scored=lambda scores: scores.temperature_delta,
    ),
    ChangeMetric(
        key="throttling", label="Throttling", unit=Unit.SHARE, bound=bounds.THROTTLING,
        direction=Direction.RISE, cutoff=0.5, needs_requests=False,
        reason="throttling", source=_COSTS,
        sentence="The share of the time that boards were throttled grew by " + _CHANGED,
        meaning="the share of the time for which boards are throttled grows by more than "
        "`max_throttling_increase` against the control",
        scored=lambda scores: scores.throttled_delta,
    ),
    ChangeMetric(
        key="battery", label="Battery drain", unit=Unit.PERCENT_PER_HOUR,
        bound=bounds.BATTERY_DRAIN,
        direction=Direction.RISE, cutoff=15.0, needs_requests=False,
        reason="battery_drain", source=_COSTS,
        sentence="The drain of batteries grew by " + _CHANGED,
        meaning="the drain of batteries grows by more than `max_battery_drain_increase` against "
        "the control",
        scored=lambda scores: scores.battery_drain_delta,
    ),
    ChangeMetric(
        key="neighbour_latency", label="Latency of other models", unit=Unit.RATIO,
        bound=bounds.NEIGHBOUR_LATENCY,
        direction=Direction.RISE, relative=True, cutoff=0.5,
        needs_requests=False,  # a figure of each device, over 20 requests or more
        of_neighbours=True,
        reason=Reason.NEIGHBOUR.value, source="scores of the other models on the device",
        sentence="The 95th percentile of latency of {neighbour} on the same devices grew by "
        + _CHANGED,
        meaning="p95 of another model on the device grows by more than "
        "`max_neighbour_latency_increase` against the control",
        scored=lambda scores: scores.latency_log_ratio,
    ),
    ChangeMetric(
        key="neighbour_errors", label="Request errors of other models", unit=Unit.SHARE, bound=0.02,
        direction=Direction.RISE, cutoff=0.2, needs_requests=False, of_neighbours=True,
        reason=Reason.NEIGHBOUR.value, source="scores of the other models on the device",
        sentence="The share of failed requests of {neighbour} on the same devices grew by "
        + _CHANGED,
        meaning="the share of failed requests of another model on the device grows by more than "
        "2 points against the control",
        scored=lambda scores: scores.error_rate_delta,
    ),
)  # fmt: skip


def _slow(report: Telemetry, allowed_ms: float) -> tuple[int, int] | None:
    """The requests of known duration, and those slower than ``allowed_ms``."""
    counts = {} if report.sketches is None else report.sketches.latency
    if not counts:
        return None
    first = _first_slow(allowed_ms)
    slow = 0
    for place, count in counts.items():
        if place >= first:
            slow += count
    return sum(counts.values()), slow


@lru_cache(maxsize=64)
def _first_slow(allowed_ms: float) -> int:
    """The first bucket of durations that are all above ``allowed_ms``."""
    places = range(LATENCY_BUCKETS)
    return next((one for one in places if lower_edge_us(one) >= allowed_ms * 1_000), len(places))


def _p95_windows(scores: Scores) -> tuple[float, float] | None:
    """p95 before and after the switch, in milliseconds."""
    if scores.latency_us_p95 is None or scores.latency_log_ratio is None:
        return None
    after_ms = scores.latency_us_p95 / 1_000
    return after_ms / math.exp(scores.latency_log_ratio), after_ms


def _error_windows(scores: Scores) -> tuple[float, float] | None:
    """The shares of failed requests before and after the switch."""
    if scores.error_rate is None or scores.error_rate_delta is None:
        return None
    return scores.error_rate - scores.error_rate_delta, scores.error_rate


def _refusal_windows(scores: Scores) -> tuple[float, float] | None:
    """The shares of refused requests before and after the switch."""
    if scores.refusal_rate is None or scores.refusal_rate_delta is None:
        return None
    return scores.refusal_rate - scores.refusal_rate_delta, scores.refusal_rate


LIMITS: Final[tuple[LimitMetric, ...]] = (
    LimitMetric(
        key="latency_limit", label="Latency, p95", unit=Unit.MILLISECONDS, bound=bounds.LATENCY_P95,
        reason="latency", source="telemetry", counter="latency",
        sentence=_ABOVE + "a 95th percentile of latency above {allowed}" + _ABOVE_SHARE,
        meaning="too many devices have a p95 above `max_latency_p95_ms`",
        exceeds=lambda report, allowed, _: report.latency_us_p95 > allowed * 1_000,
        counted=_slow, tail=0.05, windows=_p95_windows,
        figure=Figure(
            Unit.MILLISECONDS,
            lambda side: None if side.latency_us_p95 is None else side.latency_us_p95 / 1_000,
        ),
        needs_warmth=True,
    ),
    LimitMetric(
        key="request_error_limit", label="Request errors", unit=Unit.SHARE,
        bound=bounds.REQUEST_ERROR_RATE,
        reason="request_errors", source="telemetry", counter="request_errors",
        sentence=_ABOVE + "more than {allowed} failed requests" + _ABOVE_SHARE,
        meaning="too many devices have a share of failed requests above `max_request_error_rate`",
        exceeds=lambda report, allowed, _: report.errors > allowed * report.requests,
        counted=lambda report, _: (report.requests, min(report.errors, report.requests)),
        windows=_error_windows,
        figure=Figure(Unit.SHARE, lambda side: side.error_share),
    ),
    LimitMetric(
        key="refusal_limit", label="Refused requests", unit=Unit.SHARE, bound=bounds.REFUSAL_RATE,
        reason="refusals", source="telemetry", counter="refusals",
        sentence=_ABOVE + "more than {allowed} of their requests refused before the release ran"
        + _ABOVE_SHARE,
        meaning="too many devices refuse a share of requests above `max_refusal_rate` before the "
        "release runs",
        cause=lambda side: side.refusal_cause,
        exceeds=lambda report, allowed, _: report.refused > allowed * report.asked,
        counted=lambda report, _: (report.asked, report.refused),
        windows=_refusal_windows, compared=lambda scores: scores.asked,
        figure=Figure(Unit.SHARE, lambda side: side.refusal_share),
    ),
    LimitMetric(
        key="memory_limit", label="Memory", unit=Unit.PERCENT, bound=bounds.MEMORY,
        reason="memory", source="telemetry", counter="memory",
        sentence=_ABOVE + "a memory use above {allowed} of the variant's limit"
        + _ABOVE_SHARE,
        meaning="too many devices use more than `max_memory_percent` of the variant's memory",
        exceeds=lambda report, allowed, mib: 0 < mib * allowed / 100 < report.memory_mib,
    ),
)  # fmt: skip

METRICS: Final[tuple[Metric, ...]] = (*RATES, *CHANGES, *LIMITS)
"""Every metric, in the order in which the documentation names them."""

BOUNDS: Final[tuple[Bound, ...]] = tuple(
    dict.fromkeys(metric.bound for metric in METRICS if isinstance(metric.bound, Bound))
)
"""The bounds of a plan, each once."""
