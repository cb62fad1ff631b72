"""Rollouts as text."""

from typing import Final

from edgefleet.base.texts import counted
from edgefleet.cli.screen import facts, table
from edgefleet.cli.values import age, duration, percent, size
from edgefleet.protocol.rollout import (
    BakeShare,
    Cohort,
    Difference,
    Evidence,
    GateSpec,
    Outage,
    Rate,
    RolloutSpec,
    RolloutView,
    Status,
    WaveView,
)
from edgefleet.protocol.shadow import Shadow
from edgefleet.protocol.today import today_rows
from edgefleet.protocol.why import WaitCode

BAR_CHARS: Final = 40
WARNINGS: Final = frozenset({WaitCode.BASELINE, WaitCode.HISTORY})
"""Waits that block nothing, and say which limits of the plan may not mean what they say."""

_OPTIONAL: Final = frozenset(
    {
        "again",
        "bounds",
        "shadow",
        "unjudged",
        "left out",
        "approved",
        "exposure",
        "error rate",
        "silent",
        "bake",
        "labelled",
        "taken back",
        "  by site",
    }
)


def rollout_lines(view: RolloutView) -> list[str]:
    """The whole rollout: facts, waves, evidence, and the first wait."""
    evidence = view.evidence
    lines = facts(
        row
        for row in (
            ("rollout", view.id),
            ("moves", f"{view.model} {view.release}{_from(view.previous)}"),
            *today_rows(view.model, view.release, view),
            *(("interface", change) for change in view.interface),
            ("unjudged", view.unjudged),
            ("again", view.plan.again),
            ("fleet", view.selector or "every device"),
            ("status", f"{view.status.value} ({view.reason}): {view.text}"),
            ("generation", view.generation),
            ("gate", _gate(view.gate)),
            ("shadow", _shadow(view.plan.shadow)),
            ("bounds", _bounds(view.plan)),
            ("left out", ", ".join(f"{name} {n}" for name, n in view.ineligible.items())),
            (
                "approved",
                ", ".join(f"{one.person} (wave {one.wave + 1})" for one in view.approvals),
            ),
            ("devices", counts(evidence)),
            ("exposure", _exposure(view)),
            ("error rate", _rate(evidence.errors)),
            ("silent", _rate(evidence.silence)),
            ("  by site", _sites(evidence)),
            *(("outage", _outage(one)) for one in view.outages),
            *((f"  {one.name}", _rate(one.rate)) for one in evidence.classes if one.rate.bad),
            ("taken back", _taken_back(view)),
            *((f"  {one.metric}", _difference(one)) for one in evidence.quality),
            ("canary", _cohort(evidence.canary)),
            ("control", _cohort(evidence.control)),
            ("labelled", evidence.labels.text),
            ("bake", _bake(view)),
            *(_window(one) for one in (view.bake.shares if view.bake is not None else ())),
            ("failures", ", ".join(f"{name} {n}" for name, n in evidence.reasons.items())),
            *((f"  {name}", words) for name, words in evidence.details.items()),
            *(("warning", wait.text) for wait in view.why.waits if wait.code in WARNINGS),
            ("why", view.why.line),
        )
        if row[1] or row[0] not in _OPTIONAL
    )
    rows = [_wave(view, index, wave) for index, wave in enumerate(view.waves)]
    head = ("", "wave", "cut", "exposed", "opened", "verdict")
    return [*lines, "", *table(head, rows)]


def _from(previous: str | None) -> str:
    return "" if previous is None else f", from {previous}"


def wave_bar(evidence: Evidence, width: int = BAR_CHARS) -> str:
    """The open cut as a bar: ``#`` healthy, ``+`` in trial, ``x`` failed or refused, ``.`` to go.

    Each kind that occurs has at least one character.
    """
    parts = [
        ("#", evidence.healthy),
        ("+", evidence.in_trial),
        ("x", evidence.failed + evidence.refused),
    ]
    cut = max(evidence.cut, sum(count for _, count in parts), 1)
    bar = "".join(char * max(round(width * count / cut), 1) for char, count in parts if count)
    return f"[{bar[:width].ljust(width, '.')}]"


def wave_name(view: RolloutView) -> str:
    """The open or last opened wave, as ``wave 2 of 3 (10 %)``."""
    index = view.wave
    if index is None:
        opened = [i for i, wave in enumerate(view.waves) if wave.opened_at is not None]
        if not opened:
            return f"no wave of {len(view.waves)}"
        index = opened[-1]
    wave = view.waves[index]
    return f"wave {index + 1} of {len(view.waves)} ({wave.name or f'{wave.percent:g} %'})"


def counts(evidence: Evidence) -> str:
    """The counts of the open wave, in the order of the standings of a device."""
    parts = [
        f"cut {evidence.cut}",
        f"healthy {evidence.healthy}",
        f"in trial {evidence.in_trial}",
        f"failed {evidence.failed}{_parts_of_failed(evidence)}",
        f"refused {evidence.refused}{_parts_of_refused(evidence)}" if evidence.refused else "",
        f"set aside {evidence.set_aside}" if evidence.set_aside else "",
        f"to go {evidence.offered}" if evidence.offered else "",
        f"offline {evidence.offline}" if evidence.offline else "",
        f"not begun {evidence.not_begun}" if evidence.not_begun else "",
        f"deferred {evidence.deferred}" if evidence.deferred else "",
        f"reverted {evidence.reverted}" if evidence.reverted else "",
        f"taken back {evidence.taken_back}" if evidence.taken_back else "",
    ]
    return ", ".join(filter(None, parts))


def _wave(view: RolloutView, index: int, wave: WaveView) -> tuple[object, ...]:
    judged = wave.judgement
    opened = age(wave.opened_at, view.why.at)
    return (
        ">" if index == view.wave else " ",
        wave.name or f"{wave.percent:g} %",
        wave.cut,
        wave.exposed if wave.opened_at is not None else None,
        opened,
        f"{judged.verdict.value} ({judged.reason})" if judged else None,
    )


def _gate(gate: GateSpec) -> str:
    return (
        f"error rate <= {percent(gate.max_error_rate)}, sample >= {gate.min_sample}, "
        f"soak {duration(gate.soak_s)}, confirm after {duration(gate.confirm_after_s)}"
    )


def _shadow(shadow: Shadow) -> str:
    if not shadow.share:
        return ""
    return (
        f"{percent(shadow.share)} of the requests, {counted(shadow.samples, 'sample')}, at most "
        f"{duration(shadow.for_s)}, {percent(shadow.max_disagreement)} may differ"
    )


def _bounds(plan: RolloutSpec) -> str:
    """The limits of the plan: pace, budgets, windows and approvals. Empty without limits."""
    pace, approval = plan.pace, plan.approval
    parts = [
        f"{counted(pace.starts_per_minute, 'start')} a minute" if pace.starts_per_minute else "",
        f"{size(pace.bytes_per_s)} a second" if pace.bytes_per_s else "",
        f"{size(pace.bytes_per_s_per_site)} a second and {plan.site_label}"
        if pace.bytes_per_s_per_site
        else "",
        *(f"{one.max_in_trial} in trial by {one.label}" for one in plan.budgets),
        *(
            " ".join(filter(None, (",".join(one.days), f"{one.start}-{one.end}", one.timezone)))
            for one in plan.windows
        ),
        f"{approval.people} must approve{' each wave' if approval.each_wave else ''}"
        if approval.people
        else "",
        "follows newcomers" if plan.follow else "",
    ]
    return "; ".join(filter(None, parts))


def _exposure(view: RolloutView) -> str | None:
    if view.status is Status.PLANNED:
        plan = view.plan.exposure
        return (
            f"{plan.first} in trial at first, {plan.growth:g} for each healthy device, at most "
            f"{percent(plan.ceiling)} of the fleet"
        )
    if view.allowed is None:
        return None
    return f"{view.evidence.in_trial} in trial, {view.allowed} allowed; {view.exposed} exposed"


def _taken_back(view: RolloutView) -> str:
    """``profile=jetson_nano: 4 of 4 devices with ...``. Empty if no class was taken back."""
    return "; ".join(f"{one.key}={one.value}: {one.text}" for one in view.taken_back if one.key)


def _bake(view: RolloutView) -> str | None:
    """``until 2026-09-22T14:00:00Z, 10 devices held back, 31 windows``. None without a bake."""
    bake = view.bake
    if bake is None:
        return None
    end = f"ends in {duration(max(0.0, bake.until - view.why.at))}"
    if bake.end is not None:
        end = f"ended {age(bake.ended_at, view.why.at)} ({bake.end.value})"
    parts = (
        end,
        f"{counted(bake.holdback, 'device')} held back" if bake.holdback else "",
        counted(bake.windows, "window"),
        "alert" if bake.alert is not None else "",
    )
    return ", ".join(filter(None, parts))


def _window(one: BakeShare) -> tuple[str, str]:
    if one.share is None:
        return f"  {one.metric}", "too few requests"
    control = "no control" if one.control is None else f"control {percent(one.control)}"
    text = f"{percent(one.share)} of devices flagged ({control}), {percent(one.allowed)} allowed"
    return f"  {one.metric}", f"{text}, e-value {one.e_value:.2g}"


def _sites(evidence: Evidence) -> str | None:
    """``2 groups of dark devices compared, e-value 0.4``. None if no counted device is silent."""
    sites = evidence.sites
    if not evidence.silent:
        return None
    groups = counted(sites.groups, "group")
    control = "" if sites.has_control else ", too few devices have not begun"
    return f"{groups} of dark devices compared, e-value {sites.e_value:.2g}{control}"


def _outage(one: Outage) -> str:
    """``site lyon: 3 of 3 in trial and 57 of 57 that have not begun were dark``."""
    where = f"{one.key} {one.value}" if one.key else "the fleet"
    return (
        f"{where}: {one.dark} of {one.in_trial} in trial and {one.dark_control} of {one.control} "
        "that have not begun were dark"
    )


def _parts_of_refused(evidence: Evidence) -> str:
    return f" ({evidence.damaged} got wrong bytes)" if evidence.damaged else ""


def _parts_of_failed(evidence: Evidence) -> str:
    parts = [
        f"{evidence.silent} silent" if evidence.silent else "",
        f"serving of {evidence.serving_failed}" if evidence.serving_failed else "",
    ]
    named = ", ".join(filter(None, parts))
    return f" ({named})" if named else ""


def _rate(rate: Rate) -> str | None:
    """``2 of 90, 2.2 % (0.2 % to 9.1 %), 5 % allowed, e-value 0.3``."""
    if not rate.size:
        return None
    return (
        f"{rate.bad} of {rate.size}, {percent(rate.bad / rate.size)} "
        f"({percent(rate.low)} to {percent(rate.high)}), {percent(rate.allowed)} allowed, "
        f"e-value {rate.e_value:.2g}"
    )


def _difference(one: Difference) -> str:
    return (
        f"{one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f}) over {counted(one.pairs, 'pair')}, "
        f"{one.allowed:.3g} allowed, e-value {one.e_value:.2g}"
    )


def _cohort(cohort: Cohort) -> str | None:
    if not cohort.requests and not cohort.refused:
        return None
    parts = [
        counted(cohort.devices, "device"),
        counted(cohort.requests, "request"),
        counted(cohort.errors, "error"),
        f"{cohort.refused} refused" if cohort.refused else "",
        f"confidence {cohort.confidence_mean:.3f}" if cohort.confidence_mean is not None else "",
        f"p95 {cohort.latency_us_p95} us" if cohort.latency_us_p95 is not None else "",
    ]
    return ", ".join(filter(None, parts))
