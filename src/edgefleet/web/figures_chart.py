"""Curves of what a device reported: small charts of one or two lines over time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from edgefleet.protocol.device_figures import FiguresPoint, ModelPoints
from edgefleet.web.svg import element, picture
from edgefleet.web.words import figure, latency

_HEIGHT: Final = 72
_Value = Callable[[FiguresPoint], float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart with its name, the range of its values in words, and its picture."""

    name: str
    span: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class ModelCurves:
    """A model, its last report, and its curves."""

    model: str
    last: FiguresPoint
    rate: float | None  # requests a second
    curves: tuple[Curve, ...]


def curves_of(found: ModelPoints) -> ModelCurves:
    """The curves of one model, which has at least one report."""
    return ModelCurves(
        model=found.model or "model",
        last=found.points[-1],
        rate=_rate(found.points[-1]),
        curves=(
            _curve("Requests a second", found.points, [("p50", _rate)], _rate_text, least=0.001),
            _curve(
                "Latency p50 and p95",
                found.points,
                [("p50", lambda one: one.latency_us_p50), ("p95", lambda one: one.latency_us_p95)],
                latency,
                least=1.0,
            ),
            _curve(
                "Confidence", found.points, [("p50", lambda one: one.confidence)], figure, least=1.0
            ),
        ),
    )


def _rate(point: FiguresPoint) -> float | None:
    """Requests a second, with those that were refused."""
    return None if point.span_s is None else (point.requests + point.refused) / point.span_s


def _rate_text(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.3g}"


def _curve(
    name: str,
    points: Sequence[FiguresPoint],
    lines: Sequence[tuple[str, _Value]],
    text: Callable[[float | None], str],
    *,
    least: float,
) -> Curve:
    """One chart. ``lines`` are (class, value); the axis ends at ``least`` or above."""
    values = [value for point in points for _, of in lines if (value := of(point)) is not None]
    span = f"{text(min(values))} to {text(max(values))}" if values else "none reported"
    top = max([least, *values])
    start, end = points[0].at, max(points[-1].at, points[0].at + 1.0)
    paths = [
        element("path", d=_path(points, of, start, end, top), class_=f"line {css}")
        for css, of in lines
    ]
    inside = element(
        "svg",
        *paths,
        width="100%",
        height=_HEIGHT,
        viewBox="0 0 1000 100",
        preserveAspectRatio="none",
    )
    return Curve(name, span, picture(f"{name}: {span}", _HEIGHT, [inside], "curve"))


def _path(points: Sequence[FiguresPoint], of: _Value, start: float, end: float, top: float) -> str:
    """A line through the known values. A point between unknown ones is a dot."""
    pieces: list[str] = []
    down = False
    for point in points:
        value = of(point)
        if value is None:
            down = False
            continue
        x, y = 1000 * (point.at - start) / (end - start), 97 - 93 * value / top
        pieces.append(f"L{x:.1f} {y:.1f}" if down else f"M{x:.1f} {y:.1f}h.1")
        down = True
    return "".join(pieces)
