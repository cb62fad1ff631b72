"""Why something waits, as the one report that CLI, page and logs render.

A rollout that is open always waits for something, and the report names it: how many devices, which
first, since when, and until when where the engine knows.
"""

from dataclasses import dataclass, field
from typing import assert_never

from edgefleet.protocol.rollout import Judgement, Status, Verdict
from edgefleet.protocol.why import Wait, WaitCode, WaitReport
from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.census import Census, PendingReverts
from edgefleet.rollout.constraints.reservations import DOORS
from edgefleet.rollout.evidence import gate
from edgefleet.rollout.fleet.columns import RowSelection
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.rollout.limits import FIRST_NAMES


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of a rollout at one moment. ``judgement`` is the gate's word on it."""

    at: float
    census: Census = field(default_factory=Census)
    owing: PendingReverts = field(default_factory=PendingReverts)
    judgement: Judgement | None = None
    patience_from: float = 0.0  # since when stragglers have had their chance
    blocked: tuple[Wait, ...] = ()  # what holds devices back that could begin


def explain_rollout(active: ActiveRollout, fleet: Fleet, sight: Observation) -> WaitReport:
    """What the rollout waits for, the most important first."""
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
                    text="It is paused: nobody new is offered the release until it is resumed. "
                    "If the gate fails, it is still taken back.",
                    since=state.since,
                ),
                *_wave_waits(state, fleet, sight),
            ]
        case Status.HALTED:
            waits = [_halted(active)]
        case Status.REVERTING:
            waits = _revert_waits(state, fleet, sight.owing)
        case Status.COMPLETED | Status.REVERTED | Status.REFUSED:
            waits = [
                Wait(code=WaitCode.DONE, text=f"{state.status.capitalize()}: {state.text}",
                     since=state.ended_at)
            ]  # fmt: skip
            if state.status is Status.REVERTED:
                waits += _revert_waits(state, fleet, sight.owing)[1:]
        case _:
            assert_never(state.status)
    return WaitReport(
        about=f"rollout/{state.id}", at=sight.at, line=waits[0].text, waits=tuple(waits)
    )


def first_names(fleet: Fleet, rows: RowSelection) -> tuple[str, ...]:
    """The names of the first few."""
    return fleet.names(rows.first(FIRST_NAMES))


def counted(count: int, what: str = "device") -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def plan_another(model: str) -> str:
    """The command that moves devices from a release that was taken back to another one."""
    return f"`edgefleet rollout plan --model {model} --release RELEASE`."


def _running_waits(state: RolloutState, fleet: Fleet, sight: Observation) -> list[Wait]:
    """A closed door says more than the gate; a lack of places says less."""
    doors = [wait for wait in sight.blocked if wait.code in DOORS]
    rest = [wait for wait in sight.blocked if wait.code not in DOORS]
    return [*doors, *_wave_waits(state, fleet, sight), *rest]


def _to_start(state: RolloutState) -> Wait:
    if state.spec.start_at is not None:
        return Wait(
            code=WaitCode.SCHEDULED,
            text=f"It starts by itself at the time set, or by: edgefleet rollout start {state.id}.",
            since=state.since,
            until=state.spec.start_at,
        )
    return Wait(
        code=WaitCode.START,
        text=f"It waits for somebody to start it: edgefleet rollout start {state.id}.",
        since=state.since,
    )


def _wave_waits(state: RolloutState, fleet: Fleet, sight: Observation) -> list[Wait]:
    """The gate's reason first, then who is still out."""
    wave, census, judgement = state.open_wave, sight.census, sight.judgement
    if wave is None or wave.opened_at is None or judgement is None:
        return []
    patience_until = sight.patience_from + state.spec.gate.patience_s
    patience = patience_until if patience_until > sight.at else None  # over: they are left behind
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
                text=f"{counted(len(census.in_trial))} on trial; each confirms after "
                f"{state.spec.gate.confirm_after_s:g} s of good health.",
                devices=len(census.in_trial),
                first=first_names(fleet, census.in_trial),
            )
        )
    if len(census.offered) and judgement.reason != gate.STRAGGLERS:
        waits.append(
            Wait(
                code=WaitCode.STRAGGLERS,
                text=f"{counted(len(census.offered))} of the wave reached, but not begun or still "
                "fetching.",
                since=wave.opened_at,
                until=patience,
                devices=len(census.offered),
                first=first_names(fleet, census.offered),
            )
        )
    if len(census.offline):
        waits.append(
            Wait(
                code=WaitCode.OFFLINE,
                text=f"{counted(len(census.offline))} of the wave not checking in; that never "
                "makes it fail, and the release is offered on return.",
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
        text = f"The gate fails, and it is taken back now: {judgement.text}"
        return Wait(code=WaitCode.REVERTING, text=text, since=since)
    match judgement.reason:
        case gate.SOAK | gate.PASSED:
            return Wait(
                code=WaitCode.SOAK,
                text=f"The wave is good so far: {judgement.text}",
                since=since,
                until=since + soak_s,
            )
        case gate.STRAGGLERS:
            out = census.offered if len(census.offered) else census.in_trial
            return Wait(
                code=WaitCode.STRAGGLERS,
                text=judgement.text,
                since=since,
                until=patience,
                devices=len(census.offered) + len(census.in_trial),
                first=first_names(fleet, out),
            )
        case gate.INCONCLUSIVE:
            return Wait(code=WaitCode.INCONCLUSIVE, text=judgement.text, since=since)
        case gate.SAMPLE:
            return _sample_wait(census, judgement, fleet, since=since, patience=patience)
        case _:  # a gate of the user's own
            return Wait(code=WaitCode.INCONCLUSIVE, text=judgement.text, since=since)


def _sample_wait(
    census: Census, judgement: Judgement, fleet: Fleet, *, since: float, patience: float | None
) -> Wait:
    evidence = judgement.evidence
    text = judgement.text
    if not evidence.offered and not evidence.in_trial:
        out = evidence.offline + evidence.deferred
        text += (
            f" The other {counted(out)} of the wave cannot be had now "
            f"({evidence.offline} offline, {evidence.deferred} deferred): "
            "it waits until they return, or until somebody advances or reverts it."
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
    return Wait(
        code=WaitCode.HALTED,
        text=f"It is halted: nobody new gets the release; {counted(active.ledger.exposed)} "
        "took it so far. Resume it, or revert it.",
        since=state.since,
        devices=active.ledger.exposed,
    )


def _revert_waits(state: RolloutState, fleet: Fleet, owing: PendingReverts) -> list[Wait]:
    """Who still runs what was taken back."""
    online, offline = len(owing.online), len(owing.offline)
    waits = [
        Wait(
            code=WaitCode.REVERTING,
            text=f"{state.text} Still to go back, of those that can be reached: {counted(online)}.",
            since=state.since,
            devices=online,
            first=fleet.names(owing.online[:FIRST_NAMES]),
        )
    ]
    if offline:
        waits.append(
            Wait(
                code=WaitCode.OFFLINE,
                text=f"{counted(offline)} that took it not checking in; each goes back as soon as "
                "it returns.",
                devices=offline,
                first=fleet.names(owing.offline[:FIRST_NAMES]),
            )
        )
    if owing.stranded:
        waits.append(
            Wait(
                code=WaitCode.NO_PREVIOUS_RELEASE,
                text=f"{counted(owing.stranded)} cannot roll back and still run release "
                f"{state.spec.release}: no previous release was rolled out to them. Publish "
                f"another release, then run {plan_another(state.spec.model)}",
                devices=owing.stranded,
            )
        )
    return waits
