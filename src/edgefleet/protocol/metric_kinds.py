"""The kinds of metrics that a gate compares, as records without figures."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from edgefleet.protocol.device import Outcome, Scores, Telemetry
from edgefleet.protocol.metric_bounds import Bound, Bounds, Unit


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
