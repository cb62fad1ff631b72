"""The figures, colours and scales of the charts, from the views of the hub."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgefleet.base.texts import counted
from edgefleet.protocol.metric_bounds import Unit
from edgefleet.protocol.metric_kinds import ChangeMetric, Direction
from edgefleet.protocol.metrics import CHANGES, LABELLED_ACCURACY
from edgefleet.protocol.operator import HistoryPoint, ModelView
from edgefleet.protocol.reasons import reason_text
from edgefleet.protocol.rollout import RolloutView, Verdict
from edgefleet.web.charts import Part, paired_bars, plain_bar, release_classes, stacked_bar
from edgefleet.web.limits import CHART_RELEASES
from edgefleet.web.release_chart import Event, stacked_area, thinned
from edgefleet.web.words import count, figure, latency, share, wave_percent


@dataclass(frozen=True, slots=True)
class OnRelease:
    """The online devices of a model by release, as a bar and as the parts of its legend."""

    bar: Markup
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Area:
    """The share of each release over time, with the data of the legend and the table."""

    picture: Markup
    releases: tuple[tuple[str, str], ...]  # (name, colour class), the lowest first
    points: Sequence[HistoryPoint]


@dataclass(frozen=True, slots=True)
class Metric:
    """One comparison of canary and control."""

    name: str
    canary: str
    control: str
    limit: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class ReasonCount:
    code: str
    words: str
    count: int
    bar: Markup


_TABLE_POINTS = 24


def parts_of(model: ModelView, running: Mapping[str, Mapping[str, int]]) -> OnRelease:
    """The devices that run ``model``; ``running`` is by model, then by release."""
    counts = running.get(model.name, {})
    classes = release_classes(model.releases, CHART_RELEASES)
    ordered = [*model.releases, *sorted(set(counts) - set(model.releases))]
    parts = tuple(
        Part(name or "no release", counts[name], classes.get(name, "none"))
        for name in ordered
        if counts.get(name)
    )
    return OnRelease(stacked_bar(parts, f"{model.name}, online devices by release"), parts)


def area_of(
    rollout: RolloutView, releases: Sequence[str], points: Sequence[HistoryPoint]
) -> Area | None:
    """The release of the rollout at the bottom, the previous release above it.

    None if there are fewer than two points.
    """
    if len(points) < 2:
        return None
    classes = release_classes(releases, CHART_RELEASES)
    known = {name for point in points for name in point.on_release}
    ordered = [name for name in (rollout.release, rollout.previous) if name and name in known]
    ordered += sorted(known - set(ordered))
    coloured = tuple((name, classes.get(name, "other" if name else "none")) for name in ordered)
    label = f"Share of the fleet by release of {rollout.model} over time"
    drawn = stacked_area(points, coloured, _events(rollout), label)
    return Area(drawn, coloured, thinned(points, _TABLE_POINTS))


def metrics_of(rollout: RolloutView) -> tuple[Metric, ...]:
    """Canary against control, each with the gate's limit beside the control's figure."""
    canary, control = rollout.evidence.canary, rollout.evidence.control
    compared = (_compared(metric, rollout) for metric in CHANGES)
    requests = _metric("Requests", (canary.requests, control.requests, None), _count, "")
    labelled = _labelled(rollout)
    return (*(one for one in compared if one is not None), *labelled, requests)


def _labelled(rollout: RolloutView) -> tuple[Metric, ...]:
    """The accuracy by late labels, with the counts in its name. Empty without labels."""
    found, metric = rollout.evidence.labels, LABELLED_ACCURACY
    if found.is_empty:
        return ()
    canary = found.canary_correct / found.canary if found.canary else None
    control = found.control_correct / found.control if found.control else None
    known = control is not None and metric.is_on(rollout.gate)
    limit = metric.limit_beside(control or 0.0, rollout.gate) if known else None
    name = f"{metric.label} ({found.canary} and {counted(found.control, 'label')})"
    return (_metric(name, (canary, control, limit), share, "at least"),)


def _compared(metric: ChangeMetric, rollout: RolloutView) -> Metric | None:
    """One metric of the table. None if cohorts have no figure of it."""
    whole = metric.figure
    if whole is None:
        return None
    canary = whole.read(rollout.evidence.canary)
    control = whole.read(rollout.evidence.control)
    known = control is not None and metric.is_on(rollout.gate)
    limit = metric.limit_beside(control or 0.0, rollout.gate) if known else None
    limit_word = "at most" if metric.direction is Direction.RISE else "at least"
    return _metric(metric.label, (canary, control, limit), _words_of(whole.unit), limit_word)


def _words_of(unit: Unit) -> Callable[[float | None], str]:
    match unit:
        case Unit.SHARE:
            return share
        case Unit.MICROSECONDS:
            return latency
        case Unit.COUNT:
            return _count
        case _:
            return figure


def reasons_of(reasons: Mapping[str, int]) -> tuple[ReasonCount, ...]:
    """The reasons with their counts, the most frequent first."""
    most = max(reasons.values(), default=0)
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        ReasonCount(
            code, reason_text(code), number, plain_bar(number, most, reason_text(code), "failed")
        )
        for code, number in ranked
    )


def _metric(
    name: str,
    values: tuple[float | None, float | None, float | None],
    render: Callable[[float | None], str],
    limit_word: str,
) -> Metric:
    canary, control, limit = values
    limit_text = f"{limit_word} {render(limit)}" if limit is not None else ""
    label = f"{name}: canary {render(canary)}, control {render(control)}"
    drawn = paired_bars(
        canary, control, limit=limit, label=f"{label}, limit {limit_text}" if limit_text else label
    )
    return Metric(name, render(canary), render(control), limit_text, drawn)


def _count(value: float | None) -> str:
    return count(value or 0)


def _events(rollout: RolloutView) -> list[Event]:
    events: list[Event] = []
    for wave in rollout.waves:
        if wave.opened_at is not None:
            events.append(Event(wave.opened_at, wave_percent(wave.percent), "opened"))
        if wave.judgement is not None and wave.judgement.verdict is Verdict.FAIL:
            failed = f"fail: {reason_text(wave.judgement.reason)}"
            events.append(Event(wave.judgement.at, failed, "failed"))
    if rollout.ended_at is not None:
        events.append(Event(rollout.ended_at, rollout.status.value, "ended"))
    return events
