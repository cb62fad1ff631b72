"""The plots of a profile. Candidates are numbered as in its table."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from edgefleet.optimize.judgement import Judgement
from edgefleet.optimize.measurement import Measurement
from edgefleet.optimize.pareto import transfer_bytes
from edgefleet.optimize.report.decisions import ACCURACY, SIZE, SPEED, decision, steps_text
from edgefleet.optimize.report.numbers import Scale, size_text, time_text, wilson
from edgefleet.optimize.report.report import ProfileReport
from edgefleet.optimize.report.svg import Markup, element, percent, picture
from edgefleet.optimize.report.waterfall import Drop, chosen_of, waterfall

_HEIGHT: Final = 260
_TOP: Final = 16
_BOTTOM: Final = 34
_LEFT: Final = 0.1  # of the width, for the texts of the axis
_ROW: Final = 58  # pixels of one bar below its two lines of text
_BAR: Final = 36  # pixels of its upper edge below the row's
_LAYERS: Final = 20
_ON_TOP: Final = ("refused", "good", "chosen")  # in the order of drawing

Point = tuple[float, float]


def over_size(profile: ProfileReport) -> Markup:
    """The metric over the size of the file, with the Pareto front."""
    return _pareto(profile, lambda one: one.size_bytes / (1 << 20), "size")


def over_latency(profile: ProfileReport) -> Markup:
    """The metric over the median latency, with the Pareto front."""
    return _pareto(profile, lambda one: one.latency.p50_s, "latency")


def _pareto(profile: ProfileReport, cost: Callable[[Measurement], float], name: str) -> Markup:
    """The metric over a cost, MiB or seconds, which is logarithmic."""
    measured = [profile.baseline, *(one for _, one in profile.measured)]
    x = Scale.of([max(cost(one), 1e-9) for one in measured], log=True)
    y = Scale.of([one.value for one in measured])
    text = _mib_text if name == "size" else time_text
    points: list[tuple[str, Markup]] = []
    inside = [*_grid(x, y, text), *_front(profile, cost, x, y)]
    inside.append(_point((x, y), _at(profile.baseline, cost), "B", "baseline"))
    for number, (judgement, one) in enumerate(profile.measured, 1):
        kind = "refused" if judgement.refused else "good"
        kind = "chosen" if one.sha256 == profile.chosen else kind
        points.append((kind, _point((x, y), _at(one, cost), str(number), kind)))
    inside += [point for _, point in sorted(points, key=lambda one: _ON_TOP.index(one[0]))]
    label = f"The metric over {name} of {len(measured)} models; the table has the figures."
    return picture(label, _HEIGHT, inside)


def sizes(profile: ProfileReport) -> Markup:
    """The size of each file, the largest first, and inside of it what a transfer needs."""
    rows = numbered(profile)
    rows.sort(key=lambda row: -row[1].size_bytes)
    most = max(one.size_bytes for _, one, _ in rows)
    base = profile.baseline.size_bytes
    drawn = [
        (
            f"{name}: {steps_text(one)}",
            (
                f"{size_text(one.size_bytes)} ({base / max(1, one.size_bytes):.2f}x), "
                f"sent {size_text(transfer_bytes(one))}{decision(judged, profile, SIZE)}"
            ),
            one.size_bytes / most,
            transfer_bytes(one) / most,
        )
        for name, one, judged in rows
    ]
    return _bars(drawn, "Sizes of files and, darker, of their transfer.")


def drops(profile: ProfileReport) -> Markup | None:
    """The size after each step of the variant that was chosen. None: there is none."""
    rows = waterfall(profile)
    if not rows:
        return None
    most = max(max(one.before, one.after) for one in rows)
    inside: list[Markup] = []
    for row, one in enumerate(rows):
        top, low = row * _ROW, min(one.before, one.after)
        change = f", {_percent(one)}" if row else ""
        inside += _texts(one.name, f"{size_text(one.after)}{change}", top)
        inside.append(_bar("bar", one.after / most, top + _BAR))
        gone = abs(one.before - one.after) / most
        if gone:
            kind = "gone" if one.after < one.before else "added"
            inside.append(_bar(kind, gone, top + _BAR, low / most))
    label = f"The size in {len(rows)} steps, from the model as it was given to the transfer."
    return picture(label, len(rows) * _ROW, inside)


def _percent(one: Drop) -> str:
    return f"{(one.after - one.before) / max(1, one.before):+.1%}"


def latencies(profile: ProfileReport) -> Markup:
    """The distribution of each latency: 5 to 95 % as a line, 25 to 75 % as a box, the median."""
    rows = numbered(profile)
    most = max(max((one.latency.p50_s, *one.latency.spread_s)) for _, one, _ in rows)
    base = profile.baseline.latency.p50_s
    inside: list[Markup] = []
    for row, (name, one, judged) in enumerate(rows):
        figures = (
            f"{time_text(one.latency.p50_s)} ({base / max(one.latency.p50_s, 1e-9):.2f}x), "
            f"p10 {time_text(one.latency.p10_s)}{decision(judged, profile, SPEED)}"
        )
        inside += _texts(f"{name}: {steps_text(one)}", figures, row * _ROW)
        inside += _box(one, most, row * _ROW + _BAR + 6)
    label = "Distributions of latency at the batch of the profile, from 0; the table has p50."
    return picture(label, len(rows) * _ROW, inside)


def _box(one: Measurement, most: float, at: int) -> Iterable[Markup]:
    """Without quantiles the box goes from p10 to p50."""
    p10, p50 = one.latency.p10_s, one.latency.p50_s
    low, first, middle, third, high = one.latency.spread_s or (p10, p10, p50, p50, p50)
    yield element("line", class_="whisker after", x1=percent(low / most), x2=percent(high / most),
                  y1=at, y2=at)  # fmt: skip
    yield _bar("bar", max(0.004, (third - first) / most), at - 6, first / most)
    x = percent(middle / most)
    yield element("line", class_="median", x1=x, x2=x, y1=at - 8, y2=at + 8)


def losses(profile: ProfileReport) -> Markup | None:
    """The interval of each difference to the baseline, with the loss that is allowed. None: none.

    The line at 0 is the baseline.
    """
    proofs = [
        (number, judgement, one)
        for number, (judgement, one) in enumerate(profile.measured, 1)
        if judgement.accuracy is not None
    ]
    if not proofs:
        return None
    allowed = -(1 - profile.keep) * abs(profile.baseline.value)
    ends = [0.0, allowed]
    for _, judgement, _ in proofs:
        if judgement.accuracy is not None:
            ends += [judgement.accuracy.difference.low, judgement.accuracy.difference.high]
    scale = Scale.of(ends)
    inside: list[Markup] = [
        _vertical(scale.at(0.0), len(proofs) * _ROW, "zero"),
        _vertical(scale.at(allowed), len(proofs) * _ROW, "limit"),
    ]
    for row, (number, judgement, one) in enumerate(proofs):
        name = f"{number}: {steps_text(one)}"
        inside += _interval(row, name, judgement, scale, decision(judgement, profile, ACCURACY))
    label = "Differences of the metric to the baseline with their intervals."
    return picture(label, len(proofs) * _ROW, inside)


def by_class(profile: ProfileReport) -> Markup | None:
    """The accuracy in each class with its 95 % interval, before and after. None: no classes."""
    counts = in_classes(profile)
    if not counts:
        return None
    inside: list[Markup] = []
    ends = [end for _, before, now, of in counts for n in (before, now) for end in wilson(n, of)]
    scale = Scale.of([*ends, 1.0])
    for row, (name, before, after, of) in enumerate(counts):
        top = row * _ROW
        inside += _texts(name, f"{before / of:.1%} before, {after / of:.1%} now (of {of})", top)
        for right, height, kind in ((before, 37, "before"), (after, 46, "after")):
            low, high = map(scale.at, wilson(right, of))
            inside += _whisker((low, high), scale.at(right / of), top + height, kind)
    title = f"Accuracy in {len(counts)} classes, before and after, with 95 % intervals."
    return picture(title, len(counts) * _ROW, inside)


def in_classes(profile: ProfileReport) -> list[tuple[str, int, int, int]]:
    """Name, right answers of baseline and choice, and cases of each class. Empty: no classes."""
    chosen, baseline, labels = chosen_of(profile), profile.baseline, profile.labels
    if chosen is None or not labels or {*baseline.cases, *chosen.cases} - {0.0, 1.0}:
        return []
    if not len(labels) == len(baseline.cases) == len(chosen.cases):
        return []
    return [
        (
            profile.class_names.get(label, str(label)),
            *_in_class(label, labels, baseline.cases, chosen.cases),
        )
        for label in sorted(set(labels))
    ]


def _in_class(
    label: int, labels: Sequence[int], before: Sequence[float], after: Sequence[float]
) -> tuple[int, int, int]:
    """The right answers in one class before and after, and the number of its cases."""
    places = [place for place, one in enumerate(labels) if one == label]
    return (
        round(sum(before[place] for place in places)),
        round(sum(after[place] for place in places)),
        len(places),
    )


def sensitivity(profile: ProfileReport) -> Markup | None:
    """The layers that suffer most when they alone are quantised. None: not measured."""
    worst = sorted(profile.sensitivity.items(), key=lambda one: -one[1])[:_LAYERS]
    if not worst or worst[0][1] <= 0:
        return None
    rows = [(name, f"{error:.3g}", error / worst[0][1], 0.0) for name, error in worst]
    return _bars(rows, f"The {len(rows)} most sensitive layers.")


def numbered(profile: ProfileReport) -> list[tuple[str, Measurement, Judgement | None]]:
    """The baseline as B, then the candidates that were built, with their numbers."""
    found: list[tuple[str, Measurement, Judgement | None]] = [("B", profile.baseline, None)]
    found += [(str(number), one, by) for number, (by, one) in enumerate(profile.measured, 1)]
    return found


def _mib_text(mib: float) -> str:
    return f"{mib:.3g} MiB"


def _grid(x: Scale, y: Scale, text: Callable[[float], str]) -> Iterable[Markup]:
    for tick in y.ticks():
        at = _y(y, tick)
        yield element("line", class_="grid", x1=percent(_LEFT), x2="100%", y1=at, y2=at)
        yield element("text", f"{tick:.4g}", class_="tick", x=0, y=at + 4)
    for tick in x.ticks():
        at_x = percent(_x(x, tick))
        low = _HEIGHT - _BOTTOM
        yield element("line", class_="grid", x1=at_x, x2=at_x, y1=_TOP, y2=low)
        yield element("text", text(tick), class_="tick middle", x=at_x, y=low + 18)


def _front(
    profile: ProfileReport, cost: Callable[[Measurement], float], x: Scale, y: Scale
) -> Iterable[Markup]:
    """The Pareto front as steps: no candidate is above and left of it."""
    known = {one.sha256: one for _, one in profile.measured}
    front = sorted((cost(known[one]), known[one].value) for one in profile.front if one in known)
    best: list[Point] = []
    for at, value in front:
        if not best or value > best[-1][1]:
            best.append((at, value))
    for (at, value), (next_at, next_value) in itertools.pairwise(best):
        one, other = percent(_x(x, at)), percent(_x(x, next_at))
        yield element("line", class_="front", x1=one, x2=other, y1=_y(y, value), y2=_y(y, value))
        yield element(
            "line", class_="front", x1=other, x2=other, y1=_y(y, value), y2=_y(y, next_value)
        )


def _at(one: Measurement, cost: Callable[[Measurement], float]) -> Point:
    return cost(one), one.value


def _point(scales: tuple[Scale, Scale], place: Point, text: str, kind: str) -> Markup:
    (x, y), (cost, value) = scales, place
    at = percent(_x(x, max(cost, 1e-9)))
    circle = element("circle", class_=kind, cx=at, cy=_y(y, value), r=9)
    number = element("text", text, class_=f"number {kind}", x=at, y=_y(y, value) + 4)
    return element("g", circle, number)


def _x(scale: Scale, value: float) -> float:
    return _LEFT + (1 - _LEFT) * scale.at(value)


def _y(scale: Scale, value: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - scale.at(value))


def _bars(rows: Sequence[tuple[str, str, float, float]], label: str) -> Markup:
    inside: list[Markup] = []
    for row, (name, figures, share, part) in enumerate(rows):
        top = row * _ROW
        inside += _texts(name, figures, top)
        inside.append(_bar("bar", share, top + _BAR))
        if part:
            inside.append(_bar("part", part, top + _BAR))
    return picture(label, len(rows) * _ROW, inside)


def _bar(kind: str, share: float, top: int, left: float = 0.0) -> Markup:
    width = percent(min(1.0, max(share, 0.002)))
    return element("rect", class_=kind, x=percent(left), y=top, width=width, height=12, rx=2)


def _texts(name: str, figures: str, top: int) -> tuple[Markup, Markup]:
    """Two lines above a bar, so that a narrow screen shows both whole."""
    return (
        element("text", name, class_="row", x=0, y=top + 14),
        element("text", figures, class_="tick", x=0, y=top + 29),
    )


def _vertical(share: float, height: int, kind: str) -> Markup:
    at = percent(share)
    return element("line", class_=kind, x1=at, x2=at, y1=0, y2=height)


def _interval(
    row: int, name: str, judgement: Judgement, scale: Scale, led_to: str
) -> Iterable[Markup]:
    proof = judgement.accuracy
    if proof is None:
        return
    low, high = proof.difference.low, proof.difference.high
    middle = proof.candidate - proof.baseline
    figures = f"{middle:+.4f} ({low:+.4f} to {high:+.4f}){led_to}"
    yield from _texts(name, figures, row * _ROW)
    kind = "before" if judgement.refused else "after"
    shares = scale.at(low), scale.at(high)
    yield from _whisker(shares, scale.at(middle), row * _ROW + _BAR + 6, kind)


def _whisker(ends: Point, middle: float, at: int, kind: str) -> Iterable[Markup]:
    low, high = (percent(min(1.0, max(0.0, end))) for end in ends)
    yield element("line", class_=f"whisker {kind}", x1=low, x2=high, y1=at, y2=at)
    yield element("circle", class_=f"dot {kind}", cx=percent(middle), cy=at, r=4)
