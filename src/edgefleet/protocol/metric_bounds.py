"""The limits that a plan sets for metrics: their units, ranges, defaults and options."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet.protocol.wire import Wire


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


ERROR_RATE: Final = Bound(
    "max_error_rate", Unit.SHARE,
    "Largest failed / (failed + healthy) before the release is rolled back.",
    wanted="from 0 to 1 (0.05 is 5 %)",
)  # fmt: skip
SILENT_RATE: Final = Bound(
    "max_silent_rate", Unit.SHARE,
    "Largest share of finished devices that are silent after activating; each may need a site "
    "visit.",
)  # fmt: skip
LATENCY_P95: Final = Bound(
    "max_latency_p95_ms", Unit.MILLISECONDS,
    "Largest p95 of the requests on a device, if the previous release keeps it.",
    high=math.inf, wanted="milliseconds, 0 or more",
)  # fmt: skip
LATENCY_INCREASE: Final = Bound(
    "max_latency_increase", Unit.SHARE,
    "Largest rise of p95, canary relative to control, over the same time.",
    high=100.0, wanted="0 or more (0.1 is 10 %)",
)  # fmt: skip
REQUEST_ERROR_RATE: Final = Bound(
    "max_request_error_rate", Unit.SHARE,
    "Share of the requests on a device that may fail, if the previous release keeps it.",
)  # fmt: skip
REFUSAL_RATE: Final = Bound(
    "max_refusal_rate", Unit.SHARE,
    "Share of the requests on a device that may be refused before the release runs, if the "
    "previous release keeps it.",
)  # fmt: skip
MEMORY: Final = Bound(
    "max_memory_percent", Unit.PERCENT,
    "Largest share of the variant's memory limit that a device may use, if the previous release "
    "keeps it.",
    high=math.inf, wanted="percent, 0 or more",
)  # fmt: skip
ACCURACY_DROP: Final = Bound(
    "max_accuracy_drop", Unit.SHARE,
    "Largest fall of golden accuracy below that of the release before it on the same device.",
    off=1.0,
)  # fmt: skip
LABELLED_ACCURACY_DROP: Final = Bound(
    "max_labelled_accuracy_drop", Unit.SHARE,
    "Largest fall of the accuracy by late labels below that of the previous release.",
    off=1.0,
)  # fmt: skip
CONFIDENCE_DROP: Final = Bound(
    "max_confidence_drop", Unit.NUMBER,
    "Largest fall of mean confidence, canary relative to control: quality without labels.",
    off=1.0,
)  # fmt: skip
REQUEST_DROP: Final = Bound(
    "max_request_drop", Unit.SHARE,
    "Largest fall of the requests per second on a device, canary relative to control: clients "
    "that leave a release. Off by default, because low traffic varies a lot; a fall to near zero "
    "always counts.",
    off=1.0,
)  # fmt: skip
DRIFT: Final = Bound(
    "max_drift", Unit.NUMBER,
    "Largest change of the histogram of classes, or of inputs, beyond that of the control (total "
    "variation, 0 to 1).",
    off=1.0,
)  # fmt: skip
NEIGHBOUR_LATENCY: Final = Bound(
    "max_neighbour_latency_increase", Unit.SHARE,
    "Largest rise of p95 of another model on the device, canary relative to control.",
    high=100.0, wanted="0 or more (0.1 is 10 %)",
)  # fmt: skip
CPU_INCREASE: Final = Bound(
    "max_cpu_increase", Unit.SHARE,
    "Largest rise of the CPU time of a request, canary relative to control. A device fails its "
    "trial above 1.2 times the limit (1.5 times the CPU time by default), if the rise is at least "
    "0.5 ms.",
    high=100.0, wanted="0 or more (0.1 is 10 %)",
)  # fmt: skip
MEMORY_GROWTH: Final = Bound(
    "max_memory_growth_mib_h", Unit.MIB_PER_HOUR,
    "Largest steady growth of the memory of the serving process, in MiB an hour, canary relative "
    "to control. A device fails its trial if it sees such a growth, and 4 MiB of it.",
    high=1e6, wanted="MiB an hour, 0 to 1000000",
)  # fmt: skip
TEMPERATURE_RISE: Final = Bound(
    "max_temperature_rise", Unit.CELSIUS,
    "Largest rise of the temperature of the board, in degrees Celsius, canary relative to control. "
    "Boards without a sensor do not count.",
    high=1e3, wanted="degrees Celsius, 0 to 1000",
)  # fmt: skip
THROTTLING: Final = Bound(
    "max_throttling_increase", Unit.SHARE,
    "Largest rise of the share of the time for which a board slows its processor, canary relative "
    "to control.",
    off=1.0,
)  # fmt: skip
BATTERY_DRAIN: Final = Bound(
    "max_battery_drain_increase", Unit.PERCENT_PER_HOUR,
    "Largest rise of the drain of the battery, in percent of its charge an hour, canary relative "
    "to control. Devices that are charged do not count.",
    high=1e6, wanted="percent an hour, 0 to 1000000",
)  # fmt: skip
