"""One step of a rollout: ``step(state, event, now) -> (state, effects)``, value to value.

Events carry all inputs: cuts are computed and gates are judged before the step.
"""

from typing import assert_never

from edgefleet.base.errors import OperatorError
from edgefleet.base.texts import counted
from edgefleet.protocol.rollout import (
    BakeEnd,
    Evidence,
    Judgement,
    Verdict,
)
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.lifecycle.event import (
    Advanced,
    Approved,
    BakeEnded,
    BakeJudged,
    BetsStored,
    ClassFailed,
    Event,
    Extended,
    Finished,
    GateFailed,
    Halted,
    PartFailed,
    Paused,
    RefusedByDevices,
    Resumed,
    RevertCompleted,
    RevertRequested,
    SitesCompared,
    Started,
    WaitReasonChanged,
)
from edgefleet.rollout.lifecycle.site_bets import outage_text
from edgefleet.rollout.lifecycle.state import BY_HAND, RolloutState, WaveState
from edgefleet.rollout.lifecycle.table import TABLE, RolloutSignal, verbs_now
from edgefleet.rollout.lifecycle.typed_replace import replace
from edgefleet.rollout.lifecycle.waves import (
    Opening,
    open_next,
    replace_wave,
    resized,
    waits_for,
    walked,
)
from edgefleet.rollout.limits import OUTAGES


class AuditLine(Wire, frozen=True, kw_only=True):
    """The effect of a step: one line of the audit log. ``actor``: operator, gate or a person.

    The hub adds ``way`` (the credential of the actor) and the network ``address``.
    """

    actor: str
    action: str
    about: str
    detail: str
    way: str = ""
    address: str = ""


_UNJUDGED = (
    Started, Paused, Resumed, BetsStored, BakeEnded, Halted, RevertRequested, Approved,
    SitesCompared,
    RevertCompleted,
)  # fmt: skip


_WITHIN = (
    WaitReasonChanged, Approved, BetsStored, BakeJudged, BakeEnded, ClassFailed, SitesCompared,
)  # fmt: skip
"""Events that keep status and wave."""


def by_hand(evidence: Evidence, now: float) -> Judgement:
    """The judgement for a wave that an operator passes."""
    return Judgement(
        verdict=Verdict.PASS,
        reason=BY_HAND,
        text="Passed by an operator.",
        at=now,
        evidence=evidence,
    )


def returned_by(state: RolloutState) -> float:
    """Time at which a revert ends at the latest, in seconds since the epoch.

    The limit keeps one device that cannot revert, or reports a false release, from blocking the
    other devices for ever.
    """
    gate = state.spec.gate
    return state.since + gate.patience_s + gate.confirm_after_s + gate.silence_s


def check_allowed(state: RolloutState, signal: RolloutSignal) -> None:
    """Raises OperatorError ``verb_not_now`` if the table does not allow ``signal`` now."""
    if TABLE[state.status, signal] is None:
        already = "already " if signal.value == state.status.value else ""
        *first, last = [f"`{verb}`" for verb in verbs_now(state.status)] or [""]
        possible = f"{', '.join(first)} or {last}" if first else last
        now = f"Possible now: {possible}" if possible else "No verb is possible any more"
        raise OperatorError(
            "verb_not_now",
            f"Rollout {state.id} is {already}{state.status}. {now}.",
            hint=f"Run `edgefleet rollout why {state.id}` to see what the rollout waits for.",
        )


def step(
    state: RolloutState, event: Event, now: float
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    """Returns the state after ``event``, and its audit lines.

    Raises OperatorError ``verb_not_now`` if the table has no such transition.
    """
    check_allowed(state, event.signal)
    status = TABLE[state.status, event.signal]
    if status is None:
        msg = f"{state.status} has no transition on {event.signal}"
        raise AssertionError(msg)
    if not isinstance(event, _UNJUDGED) and event.judgement is not None:
        state = _count_interim(state, event.judgement)
    if isinstance(event, _WITHIN):
        return _step_within(state, event, now)
    if isinstance(event, Extended) and event.in_place:
        return _grown(state, event, now)
    state = replace(
        state,
        status=status,
        since=now,
        generation=state.generation + 1,
        revision=state.revision + 1,
    )
    return _step_across(state, event, now)


_Across = (
    Started
    | Paused
    | Resumed
    | Advanced
    | Extended
    | Finished
    | Halted
    | RevertRequested
    | GateFailed
    | PartFailed
    | RefusedByDevices
    | RevertCompleted
)


def _step_across(
    state: RolloutState, event: _Across, now: float
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    """An event after which the status may be another. ``state`` has that status already."""
    match event:
        case Started():
            state = replace(state, previous=event.previous, started_at=now)
            return _opened(state, event.opening, now, "operator", "start")
        case Paused():
            return _with_reason(
                state,
                "paused",
                "Paused by an operator: no further device is offered the release.",
                "pause",
            )
        case Resumed():
            if event.opening is None:
                return _with_reason(state, "resumed", "Resumed by an operator.", "resume")
            state = replace(state, started_at=now)
            return _opened(state, event.opening, now, "operator", "resume")
        case Advanced():
            return _advanced(state, event, now)
        case Extended():
            state = walked(state, event.judgement, event.openings, now, closed=False)
            state = replace(state, reason="wave_open", text=_wave_text(state))
            text = f"{event.judgement.text} {state.text}"
            return state, (_line(state, "gate", "extend", text),)
        case Finished():
            state = walked(state, event.judgement, event.openings, now, closed=True)
            state = replace(state, ended_at=now, rows_at_end=event.rows, bake=event.bake)
            unjudged = event.judgement.unjudged
            text = f"All waves passed. {unjudged}" if unjudged else "All waves passed."
            return _with_reason(state, "completed", text, "finish", event)
        case Halted():
            text = (
                "Halted by an operator: no further device gets the release; "
                "devices that have it keep it."
            )
            return _with_reason(_as_shown(state, event), "halted", text, "halt")
        case RevertRequested():
            state = _without_bake(replace(state, ended_at=None), now)
            state = _as_shown(state, event)
            return _with_reason(state, BY_HAND, "Reverted by an operator.", "revert")
        case GateFailed():
            state = _without_bake(replace(state, ended_at=None), now)
            return _failed(state, event.judgement, now, "revert")
        case PartFailed():
            state = _without_bake(replace(state, ended_at=None), now)
            state = replace(state, taken_back=(*state.taken_back, event.part))
            return _failed(state, event.judgement, now, "take back")
        case RefusedByDevices():
            state, audit = _failed(state, event.judgement, now, "refuse")
            return replace(state, ended_at=now), audit
        case RevertCompleted():
            text = f"{state.text} {_left_text(event)}"
            state = replace(state, ended_at=now, text=text)
            return state, (_line(state, "gate", "reverted", text),)
        case _:
            assert_never(event)


def _step_within(
    state: RolloutState,
    event: WaitReasonChanged
    | Approved
    | BetsStored
    | BakeJudged
    | BakeEnded
    | ClassFailed
    | SitesCompared,
    now: float,
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    """The step of an event that keeps status and wave."""
    match event:
        case WaitReasonChanged():
            return replace(waits_for(state, event.judgement), revision=state.revision + 1), ()
        case Approved():
            given = event.approval
            state = replace(state, approvals=(*state.approvals, given), revision=state.revision + 1)
            text = f"Wave {given.wave + 1}." if state.spec.approval.each_wave else "All waves."
            return state, (_line(state, given.person, "approve", text),)
        case BetsStored():
            stored = replace(state, bets=event.bets, limit_pairs=event.limit_pairs, bets_at=now)
            return replace(stored, revision=state.revision + 1), ()
        case BakeJudged():
            judged = replace(state, bake=event.bake, revision=state.revision + 1)
            return judged, (_line(state, "gate", "alert", event.note),) if event.note else ()
        case BakeEnded():
            return _bake_ended(state, event.end, now)
        case ClassFailed():
            parts = (*state.taken_back, event.part)
            state = replace(state, taken_back=parts, revision=state.revision + 1)
            state = waits_for(state, event.judgement)
            return state, (_line(state, "gate", "take back", event.judgement.text),)
        case SitesCompared():
            outages = (*state.outages, *event.outages)[-OUTAGES:]
            changed = replace(state, site_bets=event.bets, outages=outages)
            lines = (_line(state, "gate", "outage", outage_text(one)) for one in event.outages)
            return replace(changed, revision=state.revision + 1), tuple(lines)


def _grown(
    state: RolloutState, event: Extended, now: float
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    """The step of an event that adds devices to the open wave."""
    wave = state.open_wave
    grown = resized(waits_for(state, event.judgement), event.openings[-1], now)
    grown = replace(grown, since=now, revision=state.revision + 1, text=_wave_text(grown))
    if wave is None or wave.by_handfuls:  # told when its handfuls began
        return grown, ()
    text = f"{event.judgement.text} {_wave_text(grown)}"
    return grown, (_line(grown, "gate", "move_up", text),)


def _with_reason(
    state: RolloutState, reason: str, text: str, action: str, by: Finished | None = None
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    state = replace(state, reason=reason, text=text)
    actor = "gate" if by is not None and not by.by_hand else "operator"
    return state, (_line(state, actor, action, text),)


def _opened(
    state: RolloutState, opening: Opening, now: float, actor: str, action: str
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    state = open_next(state, opening, now)
    text = _wave_text(state)
    state = replace(state, reason="wave_open", text=text)
    return state, (_line(state, actor, action, text),)


def _advanced(
    state: RolloutState, event: Advanced, now: float
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    state = walked(state, event.judgement, event.openings, now, closed=False)
    text = _wave_text(state)
    state = replace(state, reason="wave_open", text=text)
    actor = "operator" if event.by_hand else "gate"
    return state, (_line(state, actor, "advance", f"{event.judgement.text} {text}"),)


def _failed(
    state: RolloutState, judgement: Judgement, now: float, action: str
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    wave = state.open_wave
    closed_at = now if wave is None or wave.closed_at is None else wave.closed_at
    state = replace_wave(state, judgement=judgement, closed_at=closed_at)
    state = replace(state, reason=judgement.reason, text=judgement.text)
    return state, (_line(state, "gate", action, judgement.text),)


def _as_shown(state: RolloutState, event: Halted | RevertRequested) -> RolloutState:
    """The state whose open wave keeps the judgement on which the operator acted."""
    if event.judgement is None:
        return state
    return replace_wave(state, judgement=event.judgement)


def _bake_ended(
    state: RolloutState, end: BakeEnd, now: float
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    """The next rollout writes the audit line of its own start, which ends the bake before it."""
    bake = state.bake
    if bake is None:
        msg = f"{state.id} has no bake"
        raise AssertionError(msg)
    ended_at = now if bake.ended_at is None else bake.ended_at
    ended = replace(bake, ended_at=ended_at, end=end, alert=None, bets={})
    state = replace(state, bake=ended, revision=state.revision + 1)
    if end is BakeEnd.SUPERSEDED:
        return state, ()
    actor = "operator" if end is BakeEnd.BY_HAND else "gate"
    held = f" The {bake.holdback} held back get the release." if bake.holdback else ""
    return state, (_line(state, actor, "bake", f"The bake has ended.{held}"),)


def _without_bake(state: RolloutState, now: float) -> RolloutState:
    """The state of a rollout that is rolled back."""
    bake = state.bake
    if bake is None:
        return state
    ended_at = now if bake.ended_at is None else bake.ended_at
    return replace(state, bake=replace(bake, ended_at=ended_at, end=BakeEnd.REVERTED, alert=None))


def _count_interim(state: RolloutState, judgement: Judgement) -> RolloutState:
    """The state with the exact test that the judgement took, if it took one."""
    if not judgement.interim:
        return state
    seen = judgement.evidence
    size = seen.failed + seen.refused + seen.healthy
    return replace(state, looks=judgement.interim, looked=size)


def _wave_text(state: RolloutState) -> str:
    wave: WaveState | None = state.open_wave
    if wave is None or state.wave is None:
        return ""
    how = "open by handfuls" if wave.by_handfuls else "open"
    held = f", {wave.holdback} held back" if wave.holdback else ""
    return (
        f"Wave {state.wave + 1} of {len(state.waves)} is {how}: {wave.name}, "
        f"{wave.cut} of {wave.population} devices{held}."
    )


def _left_text(completed: RevertCompleted) -> str:
    """The devices that run the release at the end of its revert, in sentences."""
    if not (completed.left or completed.stranded or completed.kept):
        return "No online device runs the release any more."
    texts: list[str] = []
    if left := completed.left:
        devices = "1 online device still runs" if left == 1 else f"{left} online devices still run"
        texts.append(f"{devices} the release; each check-in is still answered with the revert.")
    if completed.stranded:
        keep = _keep(completed.stranded)
        texts.append(f"{keep} the release, without a previous one to return to.")
    if completed.kept:
        texts.append(f"{_keep(completed.kept)} the release, which another rollout gives.")
    return " ".join(texts)


def _keep(count: int) -> str:
    return "1 device keeps" if count == 1 else f"{counted(count, 'device')} keep"


def _line(state: RolloutState, actor: str, action: str, detail: str) -> AuditLine:
    return AuditLine(actor=actor, action=action, about=f"rollout/{state.id}", detail=detail)
