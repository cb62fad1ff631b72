"""The plots of a profile for a terminal of 80 columns, with block characters."""

from collections.abc import Iterator
from typing import Final

from edgefleet.optimize.measurement import Measurement
from edgefleet.optimize.report.charts import in_classes, numbered
from edgefleet.optimize.report.decisions import ACCURACY, SPEED, decision, steps_text
from edgefleet.optimize.report.numbers import Scale, size_text, time_text, wilson
from edgefleet.optimize.report.report import ProfileReport
from edgefleet.optimize.report.waterfall import waterfall

_WIDTH: Final = 40
_HEIGHT: Final = 10
_NAME: Final = 36
_LAYERS: Final = 10
_LINE: Final = "\u2500"
_FULL: Final = "\u2588"
_LIGHT: Final = "\u2591"


def plots(profile: ProfileReport) -> Iterator[str]:
    """All plots that there are data for, each with a title, as lines."""
    for title, lines in (
        (
            "Metric over size (B: the model as it was given; * on the Pareto front)",
            _pareto(profile),
        ),
        ("From the model to the transfer", _waterfall(profile)),
        ("Latency: 5 to 95 % as a line, 25 to 75 % as a box, | the median", _latency(profile)),
        ("Metric minus that of the baseline, with intervals (: 0, ! allowed)", _losses(profile)),
        ("Accuracy by class with 95 % intervals (o before, x now)", _classes(profile)),
        ("Error when one layer alone is quantised", _sensitivity(profile)),
    ):
        drawn = list(lines)
        if drawn:
            yield from ("", title, *drawn)


def _pareto(profile: ProfileReport) -> Iterator[str]:
    rows = numbered(profile)
    x = Scale.of([max(1, one.size_bytes) for _, one, _ in rows], log=True)
    y = Scale.of([one.value for _, one, _ in rows])
    field = [[" "] * (4 * _WIDTH) for _ in range(_HEIGHT)]
    for name, one, _ in rows:
        row = round((_HEIGHT - 1) * (1 - y.at(one.value)))
        column = round((_WIDTH - 1) * x.at(max(1, one.size_bytes)))
        mark = f"{name}*" if one.sha256 in profile.front else name
        while any(cell != " " for cell in field[row][column : column + len(mark)]):
            column += 1  # a candidate is there: beside it
        field[row][column : column + len(mark)] = mark
    for row, cells in enumerate(field):
        value = y.low + (y.high - y.low) * (1 - row / (_HEIGHT - 1))
        yield f"{value:>8.4f} \u2502{''.join(cells).rstrip()}"
    low, high = size_text(x.low), size_text(x.high)
    yield f"{'':>8} \u2514{_LINE * _WIDTH}"
    yield f"{'':>10}{low}{high:>{_WIDTH - len(low)}}"


def _waterfall(profile: ProfileReport) -> Iterator[str]:
    rows = waterfall(profile)
    most = max((max(one.before, one.after) for one in rows), default=1)
    for one in rows:
        full = round(_WIDTH * one.after / most)
        gone = max(0, round(_WIDTH * one.before / most) - full)
        yield f"{_cut(one.name)} {_FULL * full}{_LIGHT * gone} {size_text(one.after)}"


def _latency(profile: ProfileReport) -> Iterator[str]:
    rows = numbered(profile)
    most = max(max((one.latency.p50_s, *one.latency.spread_s)) for _, one, _ in rows)
    for name, one, judged in rows:
        text = f"{time_text(one.latency.p50_s)}{decision(judged, profile, SPEED)}"
        yield f"{_cut(f'{name} {steps_text(one)}')} {_box(one, most)} {text}"


def _box(one: Measurement, most: float) -> str:
    p10, p50 = one.latency.p10_s, one.latency.p50_s
    quantiles = one.latency.spread_s or (p10, p10, p50, p50, p50)
    low, first, middle, third, high = (round((_WIDTH - 1) * each / most) for each in quantiles)
    line = [" "] * _WIDTH
    line[low : high + 1] = _LINE * (high + 1 - low)
    line[first : third + 1] = _FULL * (third + 1 - first)
    line[middle] = "|"
    return "".join(line)


def _losses(profile: ProfileReport) -> Iterator[str]:
    proofs = [
        (name, one, judged, judged.accuracy)
        for name, one, judged in numbered(profile)
        if judged is not None and judged.accuracy is not None
    ]
    allowed = -(1 - profile.keep) * abs(profile.baseline.value)
    ends = [end for *_, proof in proofs for end in (proof.difference.low, proof.difference.high)]
    scale = Scale.of([0.0, allowed, *ends])
    for name, one, judged, proof in proofs:
        low, high = proof.difference.low, proof.difference.high
        line = _interval(scale, low, proof.candidate - proof.baseline, high, "\u25cf")
        for at, mark in ((allowed, "!"), (0.0, ":")):
            place = _place(scale, at)
            line[place] = mark if line[place] == " " else line[place]
        text = f"{low:+.4f} to {high:+.4f}{decision(judged, profile, ACCURACY)}"
        yield f"{_cut(f'{name} {steps_text(one)}')} {''.join(line)} {text}"


def _classes(profile: ProfileReport) -> Iterator[str]:
    found = in_classes(profile)
    ends = [end for _, before, now, of in found for n in (before, now) for end in wilson(n, of)]
    scale = Scale.of([*ends, 1.0])
    for name, before, now, of in found:
        low, high = wilson(now, of)
        line = _interval(scale, low, now / of, high, "x")
        place = _place(scale, before / of)
        line[place] = "o" if line[place] != "x" else "x"
        yield f"{_cut(name)} {''.join(line)} {before / of:.1%} -> {now / of:.1%} of {of}"


def _sensitivity(profile: ProfileReport) -> Iterator[str]:
    worst = sorted(profile.sensitivity.items(), key=lambda one: -one[1])[:_LAYERS]
    for name, error in worst:
        yield f"{_cut(name)} {_FULL * round(_WIDTH * error / (worst[0][1] or 1.0))} {error:.3g}"


def _interval(scale: Scale, low: float, middle: float, high: float, mark: str) -> list[str]:
    first, last = _place(scale, low), _place(scale, high)
    line = [" "] * _WIDTH
    line[first : last + 1] = _LINE * (last + 1 - first)
    line[_place(scale, middle)] = mark
    return line


def _place(scale: Scale, value: float) -> int:
    return min(_WIDTH - 1, max(0, round((_WIDTH - 1) * scale.at(value))))


def _cut(text: str) -> str:
    return text.ljust(_NAME) if len(text) <= _NAME else f"{text[: _NAME - 3]}..."
