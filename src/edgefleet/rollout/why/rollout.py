"""The reasons why a rollout waits: one report for CLI, page and logs.

An open rollout always waits. The report names the number of devices, the first of them, the begin
of the wait and, where the engine knows it, the end.
"""

from dataclasses import dataclass, field
from typing import Final, assert_never

import numpy as np

from edgefleet.base.texts import counted
from edgefleet.protocol.rollout import Judgement, Status, Verdict
from edgefleet.protocol.why import WAITS, Wait, WaitCode, WaitReport
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.census import Census, PendingReverts
from edgefleet.rollout.evidence import gate, traffic
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import RowSelection
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.site_bets import outage_text
from edgefleet.rollout.lifecycle.state import WITHDRAWN, RolloutState
from edgefleet.rollout.limits import CLEAN_WINDOWS, FIRST_NAMES, OUTAGES_SHOWN
from edgefleet.rollout.plan import second_chance
from edgefleet.rollout.why.baseline import baseline_waits
from edgefleet.rollout.why.left_out import NOBODY, LeftOut

_ENDS: Final = {
    Status.COMPLETED: "Completed",
    Status.REVERTED: "Rolled back",
    Status.REFUSED: "Refused",
}
_WITH_BASELINE: Final = frozenset({Status.PLANNED, Status.RUNNING, Status.PAUSED})
"""The statuses in which the limits of the plan still decide."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A snapshot of a rollout. ``judgement`` is the judgement of the gate on it."""

    at: float
    census: Census = field(default_factory=Census)
    owing: PendingReverts = field(default_factory=PendingReverts)
    judgement: Judgement | None = None
    patience_from: float = 0.0  # when the patience for stragglers began
    blocked: tuple[Wait, ...] = ()  # the reasons why devices may not start now
    left_out: LeftOut = NOBODY  # of a completed rollout


def explain_rollout(active: ActiveRollout, fleet: Fleet, sight: Observation) -> WaitReport:
    """The reasons why the rollout waits, the most important first."""
    state = active.state
    match state.status:
        case Status.PLANNED:
            waits = [_to_start(state), *sight.blocked]
        case Status.RUNNING:
            waits = _running_waits(state, fleet, sight)
        case Status.PAUSED:
            waits = [
                Wait(
                    code=WaitCode.PAUSED,
                    text="The rollout is paused: no further device is offered the release. If the "
                    "gate fails, the release is still rolled back. Run "
                    f"`edgefleet rollout resume {state.id}` to continue.",
                    since=state.since,
                ),
                *_wave_waits(state, fleet, sight),
            ]
        case Status.HALTED:
            waits = [_halted(active)]
        case Status.REVERTING:
            waits = _revert_waits(state, fleet, sight.owing)
        case Status.COMPLETED if state.is_watched:
            waits = [*_watched_waits(state, sight.left_out.text), *sight.blocked]
        case Status.COMPLETED | Status.REVERTED | Status.REFUSED:
            waits = [
                Wait(
                    code=WaitCode.DONE,
                    text=_ended(_ENDS[state.status], sight.left_out.text, state.text),
                    since=state.ended_at,
                ),
                *sight.blocked,
            ]
            if active.holds_late:
                waits.insert(0, _late_failures(active))
            if state.status is Status.REVERTED:
                waits += _revert_waits(state, fleet, sight.owing)[1:]
        case _:
            assert_never(state.status)
    if state.status not in WITHDRAWN:
        waits += _taken_back(active, fleet)
    if state.status in _WITH_BASELINE:
        waits += baseline_waits(state, sight.census.evidence)
    labels = active.cohorts.labels.evidence()
    if not labels.is_empty:
        text = f"Labelled accuracy of release {state.spec.release}: {labels.text}."
        waits.append(Wait(code=WaitCode.LABELS, text=text))
    if state.spec.again:
        text = second_chance(state.spec)
        waits.append(Wait(code=WaitCode.AGAIN, text=text, since=state.created_at))
    return WaitReport(
        about=f"rollout/{state.id}", at=sight.at, line=waits[0].text, waits=tuple(waits)
    )


def first_names(fleet: Fleet, rows: RowSelection) -> tuple[str, ...]:
    """The names of the first FIRST_NAMES devices."""
    return fleet.names(rows.first(FIRST_NAMES))


def plan_another(model: str, release: str = "RELEASE") -> str:
    """The command that plans a rollout, as the end of a sentence."""
    return f"`edgefleet rollout plan --model {model} --release {release}`."


def _ended(how: str, left_out: str, text: str) -> str:
    return f"{how}{left_out}. {text}" if left_out else f"{how}: {text}"


def _watched_waits(state: RolloutState, left_out: str) -> list[Wait]:
    """The alert of a completed rollout, then its bake, if that is open."""
    bake, waits = state.bake, []
    if bake is None:
        return []
    if bake.alert is not None:
        hold = " The bake goes on until then, and no further device begins." if bake.is_open else ""
        accept = f" or `edgefleet rollout advance {state.id}`" if bake.is_open else ""
        waits.append(
            Wait(
                code=WaitCode.BAKE_ALERT,
                text=f"{bake.alert.text} Run `edgefleet rollout revert {state.id}`{accept}, or "
                f"wait: the alert clears after {CLEAN_WINDOWS} windows within the limit.{hold}",
                since=bake.alert.at,
            )
        )
    if not bake.is_open:
        return [
            *waits,
            Wait(
                code=WaitCode.DONE,
                text=_ended("Completed", left_out, state.text),
                since=state.ended_at,
            ),
        ]
    held = ""
    if bake.holdback:
        held = f" {counted(bake.holdback, 'device')} held back as control until then."
    waits.append(
        Wait(
            code=WaitCode.BAKE,
            text=f"{_ended('Completed', left_out, state.text)} In the bake the release is "
            f"still judged, and rolled back by itself if it fails.{held}",
            since=state.ended_at,
            until=None if bake.alert is not None else bake.until,
            devices=bake.holdback or None,
        )
    )
    return waits


def _running_waits(state: RolloutState, fleet: Fleet, sight: Observation) -> list[Wait]:
    """Freeze, approval and windows come before the gate; exposure and pace come after it."""
    doors = [wait for wait in sight.blocked if WAITS[wait.code].is_door]
    rest = [wait for wait in sight.blocked if not WAITS[wait.code].is_door]
    return [*doors, *_wave_waits(state, fleet, sight), *rest]


def _to_start(state: RolloutState) -> Wait:
    if state.spec.start_at is not None:
        return Wait(
            code=WaitCode.SCHEDULED,
            text="The rollout starts by itself at the planned time. To start it now, run "
            f"`edgefleet rollout start {state.id}`.",
            since=state.since,
            until=state.spec.start_at,
        )
    return Wait(
        code=WaitCode.START,
        text=f"The rollout is planned. Run `edgefleet rollout start {state.id}`.",
        since=state.since,
    )


def _wave_waits(state: RolloutState, fleet: Fleet, sight: Observation) -> list[Wait]:
    """The reason of the gate, then the devices that have not finished."""
    wave, census, judgement = state.open_wave, sight.census, sight.judgement
    if wave is None or wave.opened_at is None or judgement is None:
        return []
    patience_until = sight.patience_from + state.spec.gate.patience_s
    patience = patience_until if patience_until > sight.at else None  # None: it is over
    before = wave.judgement
    reason = gate.SOAK if judgement.reason == gate.PASSED else judgement.reason
    since = before.at if before is not None and before.reason == reason else judgement.at
    waits = [
        _gate_wait(
            census, judgement, fleet, since=since, soak_s=state.spec.gate.soak_s, patience=patience
        )
    ]
    if len(census.in_trial):
        waits.append(
            Wait(
                code=WaitCode.TRIAL,
                text=f"{counted(len(census.in_trial), 'device')} in trial; each confirms after "
                f"{state.spec.gate.confirm_after_s:g} s of good health.",
                devices=len(census.in_trial),
                first=first_names(fleet, census.in_trial),
            )
        )
    late = census.stragglers
    if len(late) and judgement.reason != gate.STRAGGLERS:
        waits.append(
            Wait(
                code=WaitCode.STRAGGLERS,
                text=f"Online devices of the wave that have not started: {len(late)}.",
                since=wave.opened_at,
                until=patience,
                devices=len(late),
                first=first_names(fleet, late),
            )
        )
    if census.evidence.set_aside:
        waits += [
            Wait(code=WaitCode.OUTAGE, text=outage_text(one), since=one.at, devices=one.dark)
            for one in state.outages[-OUTAGES_SHOWN:]
        ]
    if len(census.offline):
        waits.append(
            Wait(
                code=WaitCode.OFFLINE,
                text=f"Offline devices of the wave: {len(census.offline)}. Offline devices never "
                "fail a wave; the release is offered when they return.",
                devices=len(census.offline),
                first=first_names(fleet, census.offline),
            )
        )
    return waits


def _gate_wait(
    census: Census,
    judgement: Judgement,
    fleet: Fleet,
    *,
    since: float,
    soak_s: float,
    patience: float | None,
) -> Wait:
    if judgement.verdict is Verdict.FAIL:
        text = f"The gate failed, and the release is rolled back now. {judgement.text}"
        return Wait(code=WaitCode.REVERTING, text=text, since=since)
    match judgement.reason:
        case gate.SOAK | gate.PASSED:
            return Wait(
                code=WaitCode.SOAK,
                text=f"The wave passes so far. {judgement.text}",
                since=since,
                until=since + soak_s,
            )
        case gate.STRAGGLERS:
            late = census.stragglers
            out = late if len(late) else census.in_trial
            return Wait(
                code=WaitCode.STRAGGLERS,
                text=judgement.text,
                since=since,
                until=patience,
                devices=len(late) + len(census.in_trial),
                first=first_names(fleet, out),
            )
        case gate.EXTENDS:
            return Wait(code=WaitCode.EXTENDS, text=judgement.text, since=since)
        case traffic.NO_REQUESTS:
            return Wait(code=WaitCode.NO_REQUESTS, text=judgement.text, since=since)
        case gate.INCONCLUSIVE:
            return Wait(code=WaitCode.INCONCLUSIVE, text=judgement.text, since=since)
        case gate.SAMPLE:
            return _sample_wait(census, judgement, fleet, since=since, patience=patience)
        case _:  # a custom gate
            return Wait(code=WaitCode.INCONCLUSIVE, text=judgement.text, since=since)


def _sample_wait(
    census: Census, judgement: Judgement, fleet: Fleet, *, since: float, patience: float | None
) -> Wait:
    evidence = judgement.evidence
    text = judgement.text
    if not evidence.offered and not evidence.in_trial:
        left_out = max(0, evidence.planned - evidence.cut)  # until a person acts, see ``blocked``
        out = evidence.offline + evidence.deferred + left_out
        named = [f"{evidence.offline} offline", f"{evidence.deferred} deferred"]
        named += [f"{left_out} left out"] if left_out else []
        text += (
            f" The other {counted(out, 'device')} of the wave cannot start now "
            f"({', '.join(named)}). Wait for them, or run "
            "`edgefleet rollout advance` or `edgefleet rollout revert`."
        )
    accounts = (census.offered, census.in_trial, census.offline)
    rows = next((found for found in accounts if len(found)), census.deferred)
    return Wait(
        code=WaitCode.SAMPLE,
        text=text,
        since=since,
        until=patience,
        devices=evidence.offered + evidence.in_trial + evidence.offline + evidence.deferred,
        first=first_names(fleet, rows),
    )


def _halted(active: ActiveRollout) -> Wait:
    state = active.state
    if state.reason == gate.ONE_SITE and state.taken_back:
        part = state.taken_back[-1]
        return Wait(
            code=WaitCode.ONE_SITE,
            text=f"The gate took the release back from {part.key} {part.value}. {state.text} "
            "No more devices start; devices of other sites keep it. Run "
            f"`edgefleet rollout resume {state.id}` to go on at the other sites, or "
            f"`edgefleet rollout revert {state.id}` to take it back from all.",
            since=state.since,
        )
    if state.reason == gate.LATE_FAILURES:
        healthy = active.ledger.rows(DeviceStanding.HEALTHY)
        kept = int(np.count_nonzero(~active.all_taken_back(healthy)))
        return Wait(
            code=WaitCode.LATE_FAILURES,
            text=f"The gate took the release back from the devices that started last. {state.text} "
            f"No more devices start; {counted(kept, 'device')} that confirmed it before keep it. "
            f"Run `edgefleet rollout revert {state.id}` to take it back from all, or "
            f"`edgefleet rollout resume {state.id}` to let more devices start.",
            since=state.since,
        )
    return Wait(
        code=WaitCode.HALTED,
        text="The rollout is halted: no further device gets the release, and "
        f"{counted(active.ledger.exposed, 'device')} activated it so far. Run "
        f"`edgefleet rollout resume {state.id}` or `edgefleet rollout revert {state.id}`.",
        since=state.since,
        devices=active.ledger.exposed,
    )


def _taken_back(active: ActiveRollout, fleet: Fleet) -> list[Wait]:
    """The classes of devices from which alone the release was taken back."""
    state, number = active.state, active.release.number
    waits: list[Wait] = []
    is_halted = state.status is Status.HALTED
    goes_on = "" if is_halted else ", and the rollout goes on without them"
    for part in state.taken_back:
        if not part.key:
            continue
        rows = np.flatnonzero(
            active.scope.label_values(part.key, (part.value,)).all_have(np.arange(len(fleet)))
        )
        rows = rows[fleet.models.all_run(rows, number)]
        left = f" {counted(len(rows), 'device')} of these still run it." if len(rows) else ""
        waits.append(
            Wait(
                code=WaitCode.CLASS_FAILURES,
                text=f"The gate took the release back from all devices with {part.key}="
                f"{part.value}{goes_on}. {part.text}{left}",
                since=part.at,
                devices=len(rows) or None,
                first=fleet.names(rows[:FIRST_NAMES]),
            )
        )
    return waits


def _late_failures(active: ActiveRollout) -> Wait:
    state = active.state
    judged = gate.late_text(active.late.failures(active.late.silent), state.failures_allowed)
    return Wait(
        code=WaitCode.LATE_FAILURES,
        text=f"No more devices start: {judged} Run `edgefleet rollout revert {state.id}`, or "
        f"{plan_another(active.model)}",
    )


def _revert_waits(state: RolloutState, fleet: Fleet, owing: PendingReverts) -> list[Wait]:
    """The devices that still run the release that was rolled back."""
    online, offline = len(owing.online), len(owing.offline)
    keep = owing.stranded + owing.kept
    kept = f" Devices that keep the release: {keep}." if keep else ""
    waits = [
        Wait(
            code=WaitCode.REVERTING,
            text=f"{state.text} Online devices that have yet to return: {online}.{kept}",
            since=state.since,
            devices=online,
            first=fleet.names(owing.online[:FIRST_NAMES]),
        )
    ]
    if offline:
        waits.append(
            Wait(
                code=WaitCode.OFFLINE,
                text=f"Offline devices that run the release: {offline}. Each rolls back when it "
                "checks in again.",
                devices=offline,
                first=fleet.names(owing.offline[:FIRST_NAMES]),
            )
        )
    if owing.stranded:
        waits.append(
            Wait(
                code=WaitCode.NO_PREVIOUS_RELEASE,
                text=f"Devices that keep release {state.spec.release}, because they have no "
                f"previous release: {owing.stranded}. Publish another release, then run "
                f"{plan_another(state.spec.model)}",
                devices=owing.stranded,
            )
        )
    return waits
