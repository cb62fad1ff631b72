"""The table of metrics: every quality and health figure that a gate compares, one record each.

The plan checks, the cohorts, the gate, the command line, the page and the documentation read the
records. A new metric is a record here, its bound in ``Bounds``, and the place that measures it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol

from edgefleet.protocol.bins import LATENCY_BUCKETS, lower_edge_us
from edgefleet.protocol.device import Outcome, Reason, Scores, Telemetry
from edgefleet.protocol.wire import Wire

NEAR_ZERO: Final = 0.95
"""A fall of the requests by this share is a fall to near zero: the clients have left."""


class Bounds(Wire, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of a plan, one for each bound of the table. A plan may omit each of them."""

    max_error_rate: float = 0.05  # failed / (failed + healthy)
    max_silent_rate: float = 0.01  # silent / (failed + healthy); each may need a site visit
    max_latency_p95_ms: float = 100.0  # per device; max_error_rate of the devices may exceed it
    max_latency_increase: float = 0.15  # relative increase of the canary's p95 over the control's
    max_request_error_rate: float = 0.05  # per device, likewise
    max_refusal_rate: float = 0.05  # of requests, before the release ran; per device, likewise
    max_memory_percent: float = 80.0  # of the variant's memory limit, likewise
    max_accuracy_drop: float = 0.01  # of golden accuracy, against the previous release
    max_labelled_accuracy_drop: float = 0.01  # by late labels, against the previous release
    max_confidence_drop: float = 0.10  # of the canary's mean confidence, against the control's
    max_request_drop: float = 1.0  # share of a device's requests per second; 1 is off
    max_drift: float = 0.2  # total variation of outputs or inputs, above the control's
    max_neighbour_latency_increase: float = 0.25  # of the p95 of the other models on a device
    max_cpu_increase: float = 0.25  # relative increase of CPU time per request, likewise
    max_memory_growth_mib_h: float = 20.0  # of the serving process, above the control's
    max_temperature_rise: float = 5.0  # degrees Celsius, likewise
    max_throttling_increase: float = 0.1  # share of the time that the board is throttled, likewise
    max_battery_drain_increase: float = 5.0  # percent of the battery in an hour, likewise


class Unit(StrEnum):
    """The unit of a bound and of the figure that is measured against it."""

    SHARE = "share"  # 0 to 1, shown in percent
    RATIO = "ratio"  # the logarithm of a ratio; its bound is the growth, 0.15 for 15 %
    NUMBER = "number"  # 0 to 1, shown as it is
    MILLISECONDS = "milliseconds"
    MICROSECONDS = "microseconds"
    PERCENT = "percent"
    COUNT = "count"
    MIB_PER_HOUR = "mib_per_hour"
    CELSIUS = "celsius"
    PERCENT_PER_HOUR = "percent_per_hour"

    def text(self, value: float) -> str:
        """``value`` for people, with its unit."""
        match self:
            case Unit.RATIO:
                return f"{round(100 * math.expm1(value), 1):g} %"
            case Unit.SHARE:
                return f"{round(100 * value, 1):g} %"
            case Unit.NUMBER:
                return f"{value:.3f}"
            case Unit.MILLISECONDS:
                return f"{value:g} ms"
            case Unit.MICROSECONDS:
                return f"{value:g} us"
            case Unit.PERCENT:
                return f"{value:g} %"
            case Unit.COUNT:
                return f"{value:g}"
            case Unit.MIB_PER_HOUR:
                return f"{round(value, 1):g} MiB an hour"
            case Unit.CELSIUS:
                return f"{round(value, 1):g} degrees"
            case Unit.PERCENT_PER_HOUR:
                return f"{round(value, 1):g} % an hour"

    def allowed(self, bound: float) -> float:
        """The bound of a plan in the unit of the measured figure."""
        return math.log1p(bound) if self is Unit.RATIO else bound


class Direction(StrEnum):
    """The change of a figure that is worse."""

    RISE = "rise"
    FALL = "fall"


class Side(Protocol):
    """The figures of canary or control that a metric reads: ``protocol.rollout.Cohort``."""

    @property
    def error_share(self) -> float | None: ...
    @property
    def refusal_share(self) -> float | None: ...
    @property
    def refusal_cause(self) -> str: ...
    @property
    def confidence_mean(self) -> float | None: ...
    @property
    def latency_us_p95(self) -> int | None: ...
    @property
    def cpu_us(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Figure:
    """The figure of a whole cohort. ``read`` returns None if nothing is known."""

    unit: Unit
    read: Callable[[Side], float | None]


@dataclass(frozen=True, slots=True)
class Bound:
    """One field of ``Bounds``: its unit, its range and its words.

    ``off`` is the value at which no measurement can lie above the bound. None if there is no such
    value.
    """

    field: str
    unit: Unit
    text: str
    high: float = 1.0  # the largest value that a plan may have; the smallest is 0
    wanted: str = "from 0 to 1"
    off: float | None = None

    @property
    def option(self) -> str:
        """The option of the command line: ``--max-drift``."""
        return "--" + self.field.removesuffix("_ms").replace("_", "-")

    @property
    def default(self) -> float:
        return self.of(Bounds())

    def of(self, gate: Bounds) -> float:
        """The value in a plan."""
        value: float = getattr(gate, self.field)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. ``sentence`` is the judgement when the metric fails a wave.

    ``bound`` is a field of the plan, or a constant in the unit of the metric.
    """

    key: str
    label: str
    unit: Unit
    bound: Bound | float
    reason: str  # stable code
    sentence: str
    source: str  # the report of a device that carries it
    meaning: str  # the condition that fails a wave, for the documentation
    cause: Callable[[Side], str] | None = None  # the cause that the canary names, as a sentence

    def allowed(self, gate: Bounds) -> float:
        """The limit, in the unit of the measured figure."""
        if isinstance(self.bound, Bound):
            return self.unit.allowed(self.bound.of(gate))
        return self.bound

    def is_on(self, gate: Bounds) -> bool:
        """True if a measurement can lie above the limit."""
        bound = self.bound
        return not isinstance(bound, Bound) or bound.off is None or bound.of(gate) < bound.off


@dataclass(frozen=True, slots=True, kw_only=True)
class RateMetric(Metric):
    """A share of all devices, against an absolute limit. Each device counts once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitMetric(Metric):
    """A figure of each device against an absolute limit.

    At most ``max_error_rate`` of the devices may exceed it. ``counter`` is the field of
    ``LimitCounts``. ``counted`` returns the requests of a report that count, and the bad ones of
    them: they are summed over all reports of a device. ``tail`` is the share of requests that may
    be bad; None: the limit of the plan is this share. ``exceeds`` decides on one report, where
    requests are not counted; it gets the report, the limit and the memory limit in MiB.
    ``windows`` returns the figure before and after a switch, in the unit of the limit, of the
    requests that ``compared`` counts. With ``needs_warmth`` the first report of a device after its
    switch does not count.
    """

    counter: str
    exceeds: Callable[[Telemetry, float, int], bool]
    counted: Callable[[Telemetry, float], tuple[int, int] | None] | None = None
    tail: float | None = None
    windows: Callable[[Scores], tuple[float, float] | None] | None = None
    compared: Callable[[Scores], int] = lambda scores: scores.requests
    figure: Figure | None = None  # of a whole cohort
    needs_warmth: bool = False  # the first report after a switch does not count

    def share(self, gate: Bounds) -> float:
        """The share of a device's requests that may be bad."""
        return self.allowed(gate) if self.tail is None else self.tail


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMetric(Metric):
    """How a figure changed on a device, canary relative to control: each pair counts once.

    ``scored`` reads the change from scores. ``confirmed`` reads it from a confirmation: the change
    is relative to the release before it on the same device. With ``of_labels`` the figure comes
    from late labels: ``evidence.labels`` has the pairs. One of the three is set. ``cutoff``
    bounds a difference, so that no single device decides; a larger limit widens it. ``relative`` is
    True if the limit is a share of the figure, False if it is in the figure's own unit.
    ``figure`` is the figure of a whole cohort. None if cohorts have no such figure.
    ``needs_requests`` is True if both cohorts must serve ``min_requests`` before the gate judges
    the metric. ``of_neighbours`` is True if the figure is of the other models on the device:
    ``evidence.neighbours`` has the pairs.
    """

    direction: Direction
    relative: bool = False
    cutoff: float
    needs_requests: bool = True
    of_neighbours: bool = False
    of_labels: bool = False
    scored: Callable[[Scores], float | None] | None = None
    confirmed: Callable[[Outcome], float | None] | None = None
    figure: Figure | None = None

    def worse_by(self, change: float) -> float:
        """``change`` with the sign that makes worse positive."""
        return change if self.direction is Direction.RISE else -change

    def limit_beside(self, control: float, gate: Bounds) -> float:
        """The worst figure of the canary that is allowed beside this figure of the control."""
        bound = self.bound.of(gate) if isinstance(self.bound, Bound) else self.bound
        allowed = self.worse_by(bound)
        return max(0.0, control * (1 + allowed) if self.relative else control + allowed)


_ERROR_RATE: Final = Bound(
    "max_error_rate", Unit.SHARE,
    "Largest failed / (failed + healthy) before the release is rolled back.",
    wanted="from 0 to 1 (0.05 is 5 %)",
)  # fmt: skip
_SILENT_RATE: Final = Bound(
    "max_silent_rate", Unit.SHARE,
    "Largest share of finished devices that are silent after activating; each may need a site "
    "visit.",
)  # fmt: skip
_LATENCY_P95: Final = Bound(
    "max_latency_p95_ms", Unit.MILLISECONDS,
    "Largest p95 of the requests on a device, if the previous release keeps it.",
    high=math.inf, wanted="milliseconds, 0 or more",
)  # fmt: skip
_LATENCY_INCREASE: Final = Bound(
    "max_latency_increase", Unit.SHARE,
    "Largest rise of p95, canary relative to control, over the same time.",
    high=100.0, wanted="0 or more (0.1 is 10 %)",
)  # fmt: skip
_REQUEST_ERROR_RATE: Final = Bound(
    "max_request_error_rate", Unit.SHARE,
    "Share of the requests on a device that may fail, if the previous release keeps it.",
)  # fmt: skip
_REFUSAL_RATE: Final = Bound(
    "max_refusal_rate", Unit.SHARE,
    "Share of the requests on a device that may be refused before the release runs, if the "
    "previous release keeps it.",
)  # fmt: skip
_MEMORY: Final = Bound(
    "max_memory_percent", Unit.PERCENT,
    "Largest share of the variant's memory limit that a device may use, if the previous release "
    "keeps it.",
    high=math.inf, wanted="percent, 0 or more",
)  # fmt: skip
_ACCURACY_DROP: Final = Bound(
    "max_accuracy_drop", Unit.SHARE,
    "Largest fall of golden accuracy below that of the release before it on the same device.",
    off=1.0,
)  # fmt: skip
_LABELLED_ACCURACY_DROP: Final = Bound(
    "max_labelled_accuracy_drop", Unit.SHARE,
    "Largest fall of the accuracy by late labels below that of the previous release.",
    off=1.0,
)  # fmt: skip
_CONFIDENCE_DROP: Final = Bound(
    "max_confidence_drop", Unit.NUMBER,
    "Largest fall of mean confidence, canary relative to control: quality without labels.",
    off=1.0,
)  # fmt: skip
_REQUEST_DROP: Final = Bound(
    "max_request_drop", Unit.SHARE,
    "Largest fall of the requests per second on a device, canary relative to control: clients "
    "that leave a release. Off by default, because low traffic varies a lot; a fall to near zero "
    "always counts.",
    off=1.0,
)  # fmt: skip
_DRIFT: Final = Bound(
    "max_drift", Unit.NUMBER,
    "Largest change of the histogram of classes, or of inputs, beyond that of the control (total "
    "variation, 0 to 1).",
    off=1.0,
)  # fmt: skip
_NEIGHBOUR_LATENCY: Final = Bound(
    "max_neighbour_latency_increase", Unit.SHARE,
    "Largest rise of p95 of another model on the device, canary relative to control.",
    high=100.0, wanted="0 or more (0.1 is 10 %)",
)  # fmt: skip
_CPU_INCREASE: Final = Bound(
    "max_cpu_increase", Unit.SHARE,
    "Largest rise of the CPU time of a request, canary relative to control. A device fails its "
    "trial above 1.2 times the limit (1.5 times the CPU time by default), if the rise is at least "
    "0.2 ms.",
    high=100.0, wanted="0 or more (0.1 is 10 %)",
)  # fmt: skip
_MEMORY_GROWTH: Final = Bound(
    "max_memory_growth_mib_h", Unit.MIB_PER_HOUR,
    "Largest steady growth of the memory of the serving process, in MiB an hour, canary relative "
    "to control. A device fails its trial if it sees such a growth, and 4 MiB of it.",
    high=1e6, wanted="MiB an hour, 0 to 1000000",
)  # fmt: skip
_TEMPERATURE_RISE: Final = Bound(
    "max_temperature_rise", Unit.CELSIUS,
    "Largest rise of the temperature of the board, in degrees Celsius, canary relative to control. "
    "Boards without a sensor do not count.",
    high=1e3, wanted="degrees Celsius, 0 to 1000",
)  # fmt: skip
_THROTTLING: Final = Bound(
    "max_throttling_increase", Unit.SHARE,
    "Largest rise of the share of the time for which a board slows its processor, canary relative "
    "to control.",
    off=1.0,
)  # fmt: skip
_BATTERY_DRAIN: Final = Bound(
    "max_battery_drain_increase", Unit.PERCENT_PER_HOUR,
    "Largest rise of the drain of the battery, in percent of its charge an hour, canary relative "
    "to control. Devices that are charged do not count.",
    high=1e6, wanted="percent an hour, 0 to 1000000",
)  # fmt: skip


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
    key="errors", label="Failed devices", unit=Unit.SHARE, bound=_ERROR_RATE,
    reason="error_rate", source="outcomes; silence after activating counts",
    sentence="{rate} of devices failed ({bad} of {size}; 95 % interval {low} to {high}{trial}), "
    "{allowed} allowed.",
    meaning="more than `max_error_rate` of the devices fail",
)  # fmt: skip
SILENCE: Final = RateMetric(
    key="silence", label="Silent devices", unit=Unit.SHARE, bound=_SILENT_RATE,
    reason="silent", source="time since the last check-in",
    sentence="{bad} of {size} devices are silent after activating the release, {allowed} allowed.",
    meaning="more than `max_silent_rate` of the devices are silent after activating",
)  # fmt: skip
RATES: Final[tuple[RateMetric, ...]] = (ERRORS, SILENCE)

LABELLED_ACCURACY: Final = ChangeMetric(
    key="labelled_accuracy", label="Labelled accuracy", unit=Unit.SHARE,
    bound=_LABELLED_ACCURACY_DROP,
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
        key="latency", label="Latency, p95", unit=Unit.RATIO, bound=_LATENCY_INCREASE,
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
        key="confidence", label="Mean confidence", unit=Unit.NUMBER, bound=_CONFIDENCE_DROP,
        direction=Direction.FALL, cutoff=0.3,
        reason="confidence_drop", source="scores",
        sentence="Mean confidence fell by " + _CHANGED,
        meaning="mean top score falls by more than `max_confidence_drop` against the control",
        scored=lambda scores: scores.confidence_delta,
        figure=Figure(Unit.NUMBER, lambda side: side.confidence_mean),
    ),
    ChangeMetric(
        key="accuracy", label="Golden accuracy", unit=Unit.SHARE, bound=_ACCURACY_DROP,
        direction=Direction.FALL, cutoff=0.1, needs_requests=False,
        reason="accuracy_drop", source="confirmations; the same golden set on the same device",
        sentence="Golden accuracy fell by {amount} against the previous release (limit {allowed}; "
        "{pairs} devices).",
        meaning="golden accuracy falls by more than `max_accuracy_drop`",
        confirmed=lambda outcome: _fall(outcome.accuracy_before, outcome.accuracy),
    ),
    LABELLED_ACCURACY,
    ChangeMetric(
        key="classes", label="Drift of classes", unit=Unit.NUMBER, bound=_DRIFT,
        direction=Direction.RISE, cutoff=0.5,
        reason="drift", source="scores",
        sentence="The class histogram of devices drifted by " + _CHANGED,
        meaning="the class histogram changes by more than `max_drift` beyond the control's",
        scored=lambda scores: scores.class_drift,
    ),
    ChangeMetric(
        key="inputs", label="Drift of inputs", unit=Unit.NUMBER, bound=_DRIFT,
        direction=Direction.RISE, cutoff=0.5,
        reason="drift", source="scores",
        sentence="The input histogram of devices drifted by " + _CHANGED,
        meaning="the input histogram changes by more than `max_drift` beyond the control's",
        scored=lambda scores: scores.input_drift,
    ),
    ChangeMetric(
        key="requests", label="Requests per device", unit=Unit.SHARE, bound=_REQUEST_DROP,
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
        key="cpu", label="CPU time per request", unit=Unit.RATIO, bound=_CPU_INCREASE,
        direction=Direction.RISE, relative=True, cutoff=0.8,  # of the logarithm: 2.2 times
        reason=Reason.CPU.value, source="scores",
        sentence="The CPU time of a request grew by " + _CHANGED,
        meaning="the CPU time of a request grows by more than `max_cpu_increase` against the "
        "control",
        scored=lambda scores: scores.cpu_log_ratio,
        figure=Figure(Unit.MICROSECONDS, lambda side: side.cpu_us),
    ),
    ChangeMetric(
        key="memory_growth", label="Memory growth", unit=Unit.MIB_PER_HOUR, bound=_MEMORY_GROWTH,
        direction=Direction.RISE, cutoff=60.0, needs_requests=False,
        reason=Reason.MEMORY_GROWTH.value, source=_COSTS,
        sentence="The memory of the serving process grew steadily by " + _CHANGED,
        meaning="the memory of the serving process grows steadily by "
        "`max_memory_growth_mib_h` more than in the control",
        scored=lambda scores: scores.memory_growth_delta,
    ),
    ChangeMetric(
        key="temperature", label="Temperature", unit=Unit.CELSIUS, bound=_TEMPERATURE_RISE,
        direction=Direction.RISE, cutoff=15.0, needs_requests=False,
        reason="temperature", source=_COSTS,
        sentence="The temperature of boards rose by " + _CHANGED,
        meaning="the temperature of boards rises by more than `max_temperature_rise` against the "
        "control",
        scored=lambda scores: scores.temperature_delta,
    ),
    ChangeMetric(
        key="throttling", label="Throttling", unit=Unit.SHARE, bound=_THROTTLING,
        direction=Direction.RISE, cutoff=0.5, needs_requests=False,
        reason="throttling", source=_COSTS,
        sentence="The share of the time that boards were throttled grew by " + _CHANGED,
        meaning="the share of the time for which boards are throttled grows by more than "
        "`max_throttling_increase` against the control",
        scored=lambda scores: scores.throttled_delta,
    ),
    ChangeMetric(
        key="battery", label="Battery drain", unit=Unit.PERCENT_PER_HOUR, bound=_BATTERY_DRAIN,
        direction=Direction.RISE, cutoff=15.0, needs_requests=False,
        reason="battery_drain", source=_COSTS,
        sentence="The drain of batteries grew by " + _CHANGED,
        meaning="the drain of batteries grows by more than `max_battery_drain_increase` against "
        "the control",
        scored=lambda scores: scores.battery_drain_delta,
    ),
    ChangeMetric(
        key="neighbour_latency", label="Latency of other models", unit=Unit.RATIO,
        bound=_NEIGHBOUR_LATENCY,
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
        key="latency_limit", label="Latency, p95", unit=Unit.MILLISECONDS, bound=_LATENCY_P95,
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
        bound=_REQUEST_ERROR_RATE,
        reason="request_errors", source="telemetry", counter="request_errors",
        sentence=_ABOVE + "more than {allowed} failed requests" + _ABOVE_SHARE,
        meaning="too many devices have a share of failed requests above `max_request_error_rate`",
        exceeds=lambda report, allowed, _: report.errors > allowed * report.requests,
        counted=lambda report, _: (report.requests, min(report.errors, report.requests)),
        windows=_error_windows,
        figure=Figure(Unit.SHARE, lambda side: side.error_share),
    ),
    LimitMetric(
        key="refusal_limit", label="Refused requests", unit=Unit.SHARE, bound=_REFUSAL_RATE,
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
        key="memory_limit", label="Memory", unit=Unit.PERCENT, bound=_MEMORY,
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
