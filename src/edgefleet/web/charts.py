"""Bar charts of one moment. Pure functions from figures to SVG; colours are CSS classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from markupsafe import Markup

from edgefleet.web.outcome_counts import ACCOUNTS, WaveAccounts
from edgefleet.web.svg import element, percent, picture, titled
from edgefleet.web.words import count, many, wave_percent

_SMALLEST: Final = 0.006  # share of a bar: one failed device among a million stays visible
_NARROWEST_CHARS: Final = 50  # how many characters fit along a bar on the narrowest screen


@dataclass(frozen=True, slots=True)
class Part:
    """One colour of a bar. ``css`` is its class."""

    label: str
    count: int
    css: str


def shares(counts: Sequence[int], smallest: float = _SMALLEST) -> tuple[float, ...]:
    """Widths that add up to 1: in proportion, and each count above zero is at least ``smallest``.

    All zeros give all zeros.
    """
    total = sum(counts)
    if total <= 0:
        return tuple(0.0 for _ in counts)
    smallest = min(smallest, 1 / len(counts))
    raised = [max(number / total, smallest) if number else 0.0 for number in counts]
    excess = sum(raised) - 1
    above = sum(width - smallest for width in raised if width > smallest)
    if excess <= 0 or above <= 0:
        return tuple(raised)
    return tuple(
        width - excess * (width - smallest) / above if width > smallest else width
        for width in raised
    )


def stacked_bar(parts: Sequence[Part], label: str, *, height: int = 14) -> Markup:
    """One bar, split by the counts of its parts."""
    listed = ", ".join(f"{part.label} {count(part.count)}" for part in parts if part.count)
    total = [element("rect", width="100%", height=height, class_="empty")]
    return picture(
        f"{label}: {listed or 'none'}",
        height,
        [*total, *_stack(parts, 0.0, 1.0, 0, height)],
        "bar",
    )


def wave_shares(percents: Sequence[float]) -> tuple[float, ...]:
    """The width of each wave's segment: the square root of its share, so that 1 % is visible."""
    added = [now - before for before, now in zip([0.0, *percents], percents, strict=False)]
    roots = [sqrt(max(step, 0.01)) for step in added]
    wide = [max(root / sum(roots), 0.03) for root in roots]
    return tuple(width / sum(wide) for width in wide)


def wave_bar(waves: Sequence[WaveAccounts], population: int | None, *, compact: bool) -> Markup:
    """The waves side by side, each with its devices by outcome, and the mark of the cut.

    ``compact`` leaves the labels out, for lists.
    """
    top, height = (0, 12) if compact else (20, 36)
    inside: list[Markup] = []
    start = 0.0
    cut_at: float | None = None
    cut = 0
    for wave, width in zip(waves, wave_shares([wave.percent for wave in waves]), strict=True):
        inside.append(_segment(wave, start, width, top, height))
        text = wave_percent(wave.percent)
        if not compact and (width * _NARROWEST_CHARS >= len(text) or wave.state == "open"):
            inside.append(
                element("text", text, x=percent(start), y=13, class_=f"wave-{wave.state}")
            )
        start += width
        if wave.cut is not None:
            cut_at, cut = start, wave.cut
    if cut_at is not None and not compact:
        inside.extend(_cut_mark(cut_at, cut, population, top + height))
    described = "; ".join(_described(wave) for wave in waves)
    return picture(
        f"Waves: {described}", top + height + (0 if compact else 24), inside, "bar waves"
    )


def paired_bars(
    canary: float | None, control: float | None, *, limit: float | None, label: str
) -> Markup:
    """Canary above control on one scale from zero, with the gate's limit as a line."""
    most = max(canary or 0.0, control or 0.0, limit or 0.0) * 1.1 or 1.0
    inside: list[Markup] = []
    for y, value, css in ((0, canary, "canary"), (13, control, "control")):
        inside.append(element("rect", y=y, width="100%", height=10, class_="empty"))
        if value:
            inside.append(element("rect", y=y, width=percent(value / most), height=10, class_=css))
    if limit is not None:
        x = percent(limit / most)
        inside.append(element("line", x1=x, x2=x, y1=-3, y2=26, class_="limit"))
    return picture(label, 23, inside, "bar pair")


def plain_bar(number: int, most: int, label: str, css: str = "plain") -> Markup:
    """One bar, relative to the largest number of its list."""
    width = percent(max(number / most, _SMALLEST) if most and number else 0.0)
    inside = [
        element("rect", width="100%", height=8, class_="empty"),
        element("rect", width=width, height=8, class_=css),
    ]
    return picture(f"{label}: {count(number)}", 8, inside, "bar")


def release_classes(releases: Sequence[str], most: int) -> Mapping[str, str]:
    """A colour class for each release, the same wherever its model is shown.

    Beyond ``most`` releases the oldest share one class. ``releases`` are newest first.
    """
    kept = list(reversed(releases[:most]))
    first = max(0, len(releases) - most)
    classes = {name: f"r{(first + index) % most}" for index, name in enumerate(kept)}
    return {name: classes.get(name, "other") for name in releases}


def _stack(
    parts: Sequence[Part], start: float, width: float, top: int, height: int
) -> list[Markup]:
    rects: list[Markup] = []
    for part, taken in zip(parts, shares([part.count for part in parts]), strict=True):
        if taken:
            rects.append(
                element(
                    "rect",
                    titled(f"{part.label}: {count(part.count)}"),
                    x=percent(start),
                    y=top,
                    width=percent(taken * width),
                    height=height,
                    class_=part.css,
                )
            )
        start += taken * width
    return rects


def _segment(wave: WaveAccounts, start: float, width: float, top: int, height: int) -> Markup:
    gap = min(0.003, width / 4)
    parts = [Part(a.label, wave.counts.get(a.key, 0), a.key) for a in ACCOUNTS]
    frame = element(
        "rect",
        titled(_described(wave)),
        x=percent(start),
        y=top,
        width=percent(width - gap),
        height=height,
        class_="ahead" if wave.state == "ahead" else "empty",
    )
    return element(
        "g", frame, *_stack(parts, start, width - gap, top, height), class_=f"wave {wave.state}"
    )


def _cut_mark(at: float, cut: int, population: int | None, bottom: int) -> list[Markup]:
    """A line through the bar at the end of the last opened wave, with the cut below."""
    text = f"cut {count(cut)}" + (f" of {count(population)}" if population else "")
    anchor = "start" if at < 0.35 else "end"
    x = percent(min(at, 0.999))
    return [
        element("line", x1=x, x2=x, y1=17, y2=bottom + 6, class_="cut"),
        element("text", text, x=x, y=bottom + 19, text_anchor=anchor, class_="cut"),
    ]


def _described(wave: WaveAccounts) -> str:
    name = f"wave {wave_percent(wave.percent)}"
    if wave.state == "ahead":
        return f"{name} not opened yet"
    outcomes = [
        f"{account.label} {count(wave.counts[account.key])}"
        for account in ACCOUNTS
        if wave.counts[account.key]
    ]
    added = many(wave.size or 0, "device")
    return f"{name} adds {added}: {', '.join(outcomes) or 'no reports yet'}"
