"""The share of the fleet by release over time: a stacked area with its grid, axis and events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from edgefleet.base.texts import utc_text
from edgefleet.protocol.operator import HistoryPoint
from edgefleet.web.limits import CHART_POINTS
from edgefleet.web.svg import element, percent, picture, polygon_path, titled
from edgefleet.web.words import instant, share

_TOP: Final = 40  # room for the events' names
_PLOT: Final = 200
_AXIS: Final = 22
_TICK_STEPS_S: Final = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400,
)  # fmt: skip
_MOST_TICKS: Final = 6
_MOST_TICKS_WITH_SECONDS: Final = 4
_NARROWEST_CHARS: Final = 46  # how many characters fit across the narrowest screen


@dataclass(frozen=True, slots=True)
class Event:
    """A vertical line for an event. ``at`` is in seconds since the epoch, ``css`` its class."""

    at: float
    name: str
    css: str


def thinned(points: Sequence[HistoryPoint], most: int = CHART_POINTS) -> Sequence[HistoryPoint]:
    """At most ``most`` of the points, evenly spread, including the first and the last."""
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(index * step)] for index in range(most)]


@dataclass(frozen=True, slots=True)
class Ticks:
    """The marks of a time axis, ``step_s`` apart."""

    step_s: int
    at: tuple[float, ...]


def time_ticks(start: float, end: float) -> Ticks:
    """Round times between ``start`` and ``end``, as many as fit on the narrowest screen."""
    for step in _TICK_STEPS_S:
        first = int(start // step + 1) * step
        found = tuple(float(at) for at in range(first, int(end) + 1, step))
        if len(found) <= (_MOST_TICKS if step >= 60 else _MOST_TICKS_WITH_SECONDS):
            return Ticks(step, found)
    return Ticks(_TICK_STEPS_S[-1], ())


def stacked_area(
    points: Sequence[HistoryPoint],
    releases: Sequence[tuple[str, str]],
    events: Sequence[Event],
    label: str,
) -> Markup:
    """Share of the online devices by release. ``releases`` are (name, class), bottom first."""
    points = thinned(points)
    start, end = points[0].at, max(points[-1].at, points[0].at + 1.0)
    inside = [_areas(points, releases, start, end), *_grid(), *_axis(start, end)]
    inside += _events([event for event in events if start <= event.at <= end], start, end)
    latest = ", ".join(
        f"{name or 'no release'} {share(part)}" for name, part in _shares(points[-1]).items()
    )
    return picture(f"{label}. Now: {latest}", _TOP + _PLOT + _AXIS, inside, "area")


def _shares(point: HistoryPoint) -> Mapping[str, float]:
    total = sum(point.on_release.values())
    return {name: number / total for name, number in point.on_release.items()} if total else {}


def _areas(
    points: Sequence[HistoryPoint],
    releases: Sequence[tuple[str, str]],
    start: float,
    end: float,
) -> Markup:
    """The coloured areas, in a nested SVG that stretches: x 0 to 1000, y 0 to 100 down."""
    xs: list[float] = []
    parts: list[Mapping[str, float]] = []
    for point in points:
        now = _shares(point)
        if parts and bool(now) != bool(parts[-1]):  # a vertical edge between none and some
            xs.append((point.at - start) / (end - start) * 1000)
            parts.append(parts[-1])
        xs.append((point.at - start) / (end - start) * 1000)
        parts.append(now)
    below = [0.0] * len(xs)
    paths: list[Markup] = []
    for name, css in releases:
        above = [low + part.get(name, 0.0) * 100 for low, part in zip(below, parts, strict=True)]
        outline = [(x, 100 - y) for x, y in zip(xs, above, strict=True)]
        outline += [(x, 100 - y) for x, y in zip(reversed(xs), reversed(below), strict=True)]
        paths.append(
            element("path", titled(name or "no release"), d=polygon_path(outline), class_=css)
        )
        below = above
    return element(
        "svg",
        *paths,
        y=_TOP,
        width="100%",
        height=_PLOT,
        viewBox="0 0 1000 100",
        preserveAspectRatio="none",
    )


def _grid() -> list[Markup]:
    lines: list[Markup] = []
    for quarter in range(5):
        y = _TOP + _PLOT * (1 - quarter / 4)
        lines.append(element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        lines.append(
            element("text", share(quarter / 4), x=-6, y=y + 4, text_anchor="end", class_="tick")
        )
    return lines


def _axis(start: float, end: float) -> list[Markup]:
    marks: list[Markup] = []
    ticks = time_ticks(start, end)
    shown = "minutes" if ticks.step_s >= 60 else "seconds"
    for at in ticks.at:
        where = (at - start) / (end - start)
        x, bottom = percent(where), _TOP + _PLOT
        marks.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="tick"))
        if 0.05 < where < 0.95:
            text = utc_text(at)[11:16] if shown == "minutes" else utc_text(at)[11:19]
            mark = element(
                "text",
                text,
                x=x,
                y=bottom + 18,
                text_anchor="middle",
                class_="tick",
                data_clock=instant(at),
                data_shown=shown,
            )
            marks.append(mark)
    return marks


def _events(events: Sequence[Event], start: float, end: float) -> list[Markup]:
    """Lines from top to bottom. Each name is in the first of three rows that has room."""
    rows = [-1.0, -1.0, -1.0]
    drawn: list[Markup] = []
    for event in sorted(events, key=lambda event: event.at):
        where = (event.at - start) / (end - start)
        room = (len(event.name) + 1.5) / _NARROWEST_CHARS
        anchor = "end" if where + room > 1 else "start"
        left, right = (where - room, where) if anchor == "end" else (where, where + room)
        row = next((index for index, taken in enumerate(rows) if left >= taken), None)
        top = _TOP if row is None else 2 + row * 13
        x = percent(where)
        line = element("line", x1=x, x2=x, y1=top, y2=_TOP + _PLOT)
        parts = [titled(f"{event.name}, {utc_text(event.at)}"), line]
        if row is not None:
            rows[row] = right
            shift = -4 if anchor == "end" else 4
            parts.append(element("text", event.name, x=x, y=top + 9, dx=shift, text_anchor=anchor))
        drawn.append(element("g", *parts, class_=f"event {event.css}"))
    return drawn
