"""The tests of the gate: estimate, interval and limit of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from edgefleet.protocol.metric_bounds import Unit
from edgefleet.protocol.metric_kinds import ChangeMetric
from edgefleet.protocol.metrics import (
    CHANGES,
    ERRORS,
    LIMITS,
    SILENCE,
)
from edgefleet.protocol.rollout import Evidence, LimitCounts, Rate
from edgefleet.web.svg import element, percent, picture
from edgefleet.web.words import count, figure, many, share

_ROOM: Final = 1.08  # so that no mark lies on the edge


@dataclass(frozen=True, slots=True)
class GateTest:
    """One test of the gate, as text."""

    name: str
    estimate: str
    interval: str
    allowed: str
    observed: str
    e_value: str
    leans: bool  # the evidence is against the release
    picture: Markup


def gate_tests(evidence: Evidence) -> tuple[GateTest, ...]:
    """The tests that have evidence, in a fixed order."""
    rates = ((ERRORS.label, evidence.errors), (SILENCE.label, evidence.silence))
    names = {metric.key: _name(metric) for metric in CHANGES}
    differences = (
        _test(
            names.get(one.metric, one.metric),
            (one.low, one.mean, one.high, one.allowed),
            _signed,
            observed=many(one.pairs, "pair"),
            e_value=one.e_value,
        )
        for one in evidence.quality
    )
    classes = (
        _rate(f"{ERRORS.label}, {one.name}", one.rate) for one in evidence.classes if one.rate.bad
    )
    return (*(_rate(name, rate) for name, rate in rates if rate.size), *classes, *differences)


def limit_counts(limits: LimitCounts) -> tuple[tuple[str, int], ...]:
    """The devices above each absolute limit, by the name of the metric."""
    return tuple((metric.label, getattr(limits, metric.counter)) for metric in LIMITS)


def _name(metric: ChangeMetric) -> str:
    """The metric and the change that is worse, with the scale of the figures."""
    scale = " (logarithm of the ratio)" if metric.unit is Unit.RATIO else ""
    return f"{metric.label}, {metric.direction.value}{scale}"


def _rate(name: str, rate: Rate) -> GateTest:
    return _test(
        name,
        (rate.low, rate.bad / rate.size, rate.high, rate.allowed),
        share,
        observed=f"{count(rate.bad)} of {count(rate.size)}",
        e_value=rate.e_value,
    )


def _test(
    name: str,
    at: tuple[float, float, float, float],
    render: Callable[[float], str],
    *,
    observed: str,
    e_value: float,
) -> GateTest:
    low, mean, high, allowed = at
    interval = f"{render(low)} to {render(high)}"
    label = f"{name}: {render(mean)}, interval {interval}, allowed {render(allowed)}"
    return GateTest(
        name=name,
        estimate=render(mean),
        interval=interval,
        allowed=render(allowed),
        observed=observed,
        e_value=f"{e_value:.2g}",
        leans=e_value > 1,
        picture=interval_bar(low, mean, high, allowed, label),
    )


def interval_bar(low: float, mean: float, high: float, allowed: float, label: str) -> Markup:
    """The interval as a bar with a mark at the estimate, and a dashed line at the limit."""
    least = min(0.0, low) * _ROOM
    span = max(high, allowed, mean) * _ROOM - least or 1.0

    def x(value: float) -> float:
        return min(1.0, max(0.0, (value - least) / span))

    inside = [
        element("rect", y=6, width="100%", height=4, class_="empty"),
        element(
            "rect",
            x=percent(x(low)),
            y=4,
            width=percent(x(high) - x(low)),
            height=8,
            class_="plain",
        ),
        element("line", x1=percent(x(mean)), x2=percent(x(mean)), y1=1, y2=15, class_="cut"),
        element(
            "line", x1=percent(x(allowed)), x2=percent(x(allowed)), y1=0, y2=16, class_="limit"
        ),
    ]
    return picture(label, 16, inside, "bar")


def exposure_bar(in_trial: int, allowed: int) -> Markup:
    """The share of the exposure limit that is in use."""
    used = min(1.0, in_trial / allowed) if allowed else 0.0
    inside = [
        element("rect", width="100%", height=10, class_="empty"),
        element("rect", width=percent(used), height=10, class_="trial"),
    ]
    label = f"{count(in_trial)} in trial of {count(allowed)} allowed"
    return picture(label, 10, inside, "bar")


def _signed(value: float) -> str:
    return f"+{figure(value, 3)}" if value > 0 else figure(value, 3)
