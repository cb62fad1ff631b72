"""The bake: how a release is judged after the last wave, and what comes of it.

A rollout in bake is completed: its release is the desired one of its devices, and it blocks
nothing. The bake is a second state beside the status (decision 13). All values that decide are
stored with each window, so a restart of the hub continues the bets.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from edgefleet.base.texts import counted
from edgefleet.protocol.metric_bounds import Unit
from edgefleet.protocol.metrics import CHANGES
from edgefleet.protocol.rollout import (
    BakeEnd,
    BakeShare,
    BakeView,
    Cohort,
    Evidence,
    Judgement,
    RolloutSpec,
    Verdict,
)
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence import windows as tests
from edgefleet.rollout.evidence.alphas import BAKE
from edgefleet.rollout.evidence.sequential import e_value
from edgefleet.rollout.evidence.windows import Finding, OpenWindow
from edgefleet.rollout.fleet import cut
from edgefleet.rollout.lifecycle import event as events
from edgefleet.rollout.lifecycle.bake import BakeAlert, BakeState, WindowBets
from edgefleet.rollout.lifecycle.event import Event
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.lifecycle.waves import Opening
from edgefleet.rollout.limits import (
    BAKE_SAMPLE,
    CLEAN_WINDOWS,
    WINDOW_S,
    WINDOWS_IN_BAKE,
    YEAR_S,
)
from edgefleet.rollout.withdrawal import withdrawn

_ERROR_MARGIN: Final = next(
    metric.bound
    for metric in CHANGES
    if metric.key == tests.ERRORS and isinstance(metric.bound, float)
)
_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {tests.ERRORS: "too many failed requests", tests.LATENCY: "too many slow requests"}
)


@dataclass(frozen=True, slots=True)
class Observed:
    """The facts that decide the next event of a bake, beside its state.

    ``judgement`` is the gate's, on outcomes, silence and scores; None after the bake. ``others``
    are the other rollouts.
    """

    evidence: Evidence
    judgement: Judgement | None
    others: Iterable[ActiveRollout]
    check_in_s: float  # between two check-ins of a device
    now: float


def begin(active: ActiveRollout, openings: Sequence[Opening], now: float) -> BakeState | None:
    """The bake of a rollout whose last wave passed. ``openings`` are waves without new devices.

    None if the plan has no bake.
    """
    state, spec = active.state, active.state.spec
    if spec.bake_s <= 0:
        return None
    last = openings[-1] if openings else state.open_wave
    if last is None or last.threshold is None:
        msg = f"{state.id} has no open wave"
        raise AssertionError(msg)
    holdback = (last.population or 0) - (last.cut or 0)
    control = _last_control(state)
    is_known = control.requests >= spec.gate.min_requests
    allowed, limit_us = tests.limits_of(
        max_error_rate=spec.gate.max_request_error_rate,
        max_latency_ms=spec.gate.max_latency_p95_ms,
        max_latency_increase=spec.gate.max_latency_increase,
        control_error_rate=control.errors / control.requests if is_known else None,
        control_p95_us=control.latency_us_p95 if is_known else None,
        margin=_ERROR_MARGIN,
    )
    sampled = cut.EVERYONE * BAKE_SAMPLE // max(1, last.population or 0)
    return BakeState(
        until=now + spec.bake_s,
        window_since=now,
        holdback_from=last.threshold if holdback else None,
        holdback=holdback,
        allowed=allowed,
        limit_us=limit_us,
        sampled_below=f"{sampled:016x}" if sampled < cut.EVERYONE else None,
    )


def window_s(spec: RolloutSpec, check_in_s: float) -> float:
    """The shortest length of a window: two minutes or two check-ins, shorter in a short bake."""
    return min(max(WINDOW_S, 2 * check_in_s), spec.bake_s / WINDOWS_IN_BAKE)


def next_event(active: ActiveRollout, observed: Observed) -> Event | None:
    """The next event of a watched rollout. None if nothing changes."""
    bake = active.state.bake
    if bake is None or not active.state.is_watched:
        return None
    if is_superseded(active, observed.others):
        return events.BakeEnded(end=BakeEnd.SUPERSEDED)
    if (
        bake.is_open
        and observed.judgement is not None
        and observed.judgement.verdict is Verdict.FAIL
    ):
        return withdrawn(active, observed.judgement)
    if bake.is_open and bake.alert is None and observed.now >= bake.until:
        return events.BakeEnded(end=BakeEnd.PASSED)
    if observed.judgement is not None and observed.judgement.interim:
        return events.BakeJudged(bake=bake, judgement=observed.judgement)
    return _close_window(active, bake, observed)


def is_superseded(active: ActiveRollout, others: Iterable[ActiveRollout]) -> bool:
    """True if a newer rollout of the model has begun on a device of this one."""
    state = active.state
    newer = [
        other.scope
        for other in others
        if other.model == active.model
        and other.state.created_at > state.created_at
        and other.state.started_at is not None
    ]
    if not newer:
        return False
    mine = active.scope.eligible_mask()
    return any(bool((mine & scope.eligible_mask()).any()) for scope in newer)


def show(state: RolloutState) -> BakeView | None:
    """The bake for people. None if the rollout has none."""
    bake = state.bake
    if bake is None:
        return None
    return BakeView(
        until=bake.until,
        ended_at=bake.ended_at,
        end=bake.end,
        holdback=bake.holdback if bake.is_open else 0,
        windows=bake.windows,
        shares=tuple(_share(metric, bets, state) for metric, bets in bake.bets.items()),
        alert=None if bake.alert is None else bake.alert.text,
    )


def _share(metric: str, bets: WindowBets, state: RolloutState) -> BakeShare:
    wealth = tests.wealth(bets)
    return BakeShare(
        metric=metric,
        share=bets.share,
        control=bets.control,
        allowed=state.spec.gate.max_error_rate,
        devices=bets.devices,
        e_value=e_value(math.log(wealth)) if wealth > 0 else 0.0,
    )


def _close_window(active: ActiveRollout, bake: BakeState, observed: Observed) -> Event | None:
    """The event of a window that is long enough and has enough requests. None: it stays open."""
    window, gate = active.window, active.state.spec.gate
    length_s = window_s(active.state.spec, observed.check_in_s)
    if window is None:
        window = active.window = OpenWindow()
    if observed.now < bake.window_since + length_s or not window.is_ready:
        return None
    active.window = OpenWindow()
    whole_s, log_bar = YEAR_S, 0.0
    if bake.is_open:
        whole_s, log_bar = active.state.spec.bake_s, BAKE.log_bar(gate, len(tests.METRICS))
    bets: dict[str, WindowBets] = {}
    found: dict[str, Finding] = {}
    for metric in tests.METRICS:
        bets[metric] = tests.after(
            bake.bets.get(metric, WindowBets()),
            window.counted(metric, bake.allowed[metric]),
            window.counted(metric, bake.allowed[metric], is_control=True),
            limit=gate.max_error_rate,
            windows=whole_s / length_s,
        )
        found[metric] = tests.finding(
            bets[metric],
            limit=gate.max_error_rate,
            log_bar=log_bar,
            distinct_bar=-math.log(gate.alpha),
        )
    judgement = _failed(active.state, bets, found, observed)
    if judgement is not None:
        return events.GateFailed(judgement=judgement)
    return _judged(active.state, bake, bets, found, observed.now)


def _failed(
    state: RolloutState,
    bets: Mapping[str, WindowBets],
    found: Mapping[str, Finding],
    observed: Observed,
) -> Judgement | None:
    """The judgement that rolls the release back. None if no finding may."""
    alone = state.spec.bake_revert_alone
    fails = (Finding.WORSE, Finding.ALONE) if alone else (Finding.WORSE,)
    if not state.is_baking and not alone:
        return None
    metric = next((one for one, finding in found.items() if finding in fails), None)
    if metric is None:
        return None
    when = "In the bake" if state.is_baking else "After the bake"
    return Judgement(
        verdict=Verdict.FAIL,
        reason=metric,
        text=f"{when}, {_finding_text(metric, bets[metric], state)}",
        at=observed.now,
        evidence=observed.evidence,
    )


def _judged(
    state: RolloutState,
    bake: BakeState,
    bets: dict[str, WindowBets],
    found: Mapping[str, Finding],
    now: float,
) -> events.BakeJudged:
    """The bake after a window that rolls nothing back. Its findings begin or renew an alert.

    The bets of a finding begin again, which takes only wealth away.
    """
    alert, note = bake.alert, ""
    for metric, finding in found.items():
        if finding is Finding.NOTHING:
            continue
        text = f"{_finding_text(metric, bets[metric], state)} {_CAUSE[finding]}"
        note = text if bake.alert is None else note
        alert = BakeAlert(metric=metric, text=text, at=now if alert is None else alert.at)
        bets[metric] = tests.begun_again(bets[metric])
    if alert is not None and alert is bake.alert:
        share = bets[alert.metric].share
        clean = alert.clean + 1 if share is None or share <= state.spec.gate.max_error_rate else 0
        alert = BakeAlert(metric=alert.metric, text=alert.text, at=alert.at, clean=clean)
        if clean >= CLEAN_WINDOWS:
            alert, note = (
                None,
                f"The alert is over: {counted(clean, 'window')} were within the limit.",
            )
    after = replace(bake, bets=bets, alert=alert, windows=bake.windows + 1, window_since=now)
    return events.BakeJudged(bake=after, note=note)


_CAUSE: Final[Mapping[Finding, str]] = MappingProxyType(
    {
        Finding.SHARED: "Devices of the previous release have as many, so the release is not the "
        "cause.",
        Finding.ALONE: "No control shows whether the release is the cause, so nothing is rolled "
        "back.",
        Finding.WORSE: "Nothing is rolled back by itself after the bake.",
    }
)


def _finding_text(metric: str, bets: WindowBets, state: RolloutState) -> str:
    share = Unit.SHARE.text(bets.share or 0.0)
    allowed = Unit.SHARE.text(state.spec.gate.max_error_rate)
    control = "no control" if bets.control is None else f"control {Unit.SHARE.text(bets.control)}"
    return (
        f"{share} of devices have {_WORDS[metric]} ({control}; {allowed} of devices allowed; "
        f"{counted(len(bets.strict), 'device')} clearly, e-value {tests.wealth(bets):.3g})."
    )


def _last_control(state: RolloutState) -> Cohort:
    """The figures of the previous release at the last verdict that had some."""
    judgements = (wave.judgement for wave in reversed(state.waves) if wave.judgement is not None)
    return next(
        (one.evidence.control for one in judgements if one.evidence.control.requests), Cohort()
    )
