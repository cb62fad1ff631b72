"""One step of a rollout: ``step(state, event, now) -> (state, effects)``, value to value.

Events carry all inputs: cuts are computed and gates are judged before the step.
"""

from typing import ClassVar, assert_never

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import (
    Approval,
    BakeEnd,
    Evidence,
    Judgement,
    LimitPairs,
    Outage,
    TakenBack,
    Verdict,
)
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.lifecycle.bake import BakeState
from edgefleet.rollout.lifecycle.site_bets import SiteBets, outage_text
from edgefleet.rollout.lifecycle.state import BY_HAND, RolloutState, WaveState
from edgefleet.rollout.lifecycle.stored_bet import StoredBet
from edgefleet.rollout.lifecycle.table import TABLE, RolloutSignal
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
    """The effect of a step: one line of the audit log. ``actor``: operator, gate or a person."""

    actor: str
    action: str
    about: str
    detail: str


class Started(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.STARTED
    previous: str | None
    opening: Opening


class Paused(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.PAUSED


class Resumed(Wire, frozen=True, kw_only=True):
    """``opening`` is set for a rollout that was halted before its first wave, and else None."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.RESUMED
    opening: Opening | None


class Advanced(Wire, frozen=True, kw_only=True):
    """The open wave passed. All ``openings`` but the last have the same cut as the open wave.

    A wave that was open by handfuls is the first of ``openings``: it opens whole.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.ADVANCED
    judgement: Judgement
    openings: tuple[Opening, ...]
    by_hand: bool


class Extended(Wire, frozen=True, kw_only=True):
    """The evidence of the open wave is undecided, or too few of its devices are online.

    ``openings`` are as in ``Advanced``, with a few more devices. ``in_place``: they go to the open
    wave.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.EXTENDED
    judgement: Judgement
    openings: tuple[Opening, ...]
    in_place: bool


class Finished(Wire, frozen=True, kw_only=True):
    """The last wave with new devices passed. ``openings`` have the same cut as the open wave."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.FINISHED
    judgement: Judgement
    openings: tuple[Opening, ...]
    by_hand: bool
    rows: int  # devices enrolled at this time
    bake: BakeState | None  # None: the plan has no bake


class BetsStored(Wire, frozen=True, kw_only=True):
    """The bets of canary against control, or the pairs of windows at switches, changed.

    They are stored at most once a minute.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.BETS_STORED
    bets: tuple[StoredBet, ...]
    limit_pairs: dict[str, tuple[LimitPairs, ...]]


class BakeJudged(Wire, frozen=True, kw_only=True):
    """A window of the bake was closed, or the gate took an exact test.

    ``note`` is set if an alert began or ended, ``judgement`` for an exact test.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.BAKE_JUDGED
    bake: BakeState
    note: str = ""
    judgement: Judgement | None = None


class BakeEnded(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.BAKE_ENDED
    end: BakeEnd


class Halted(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.HALTED


class RevertRequested(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.REVERT_REQUESTED


class GateFailed(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.GATE_FAILED
    judgement: Judgement


class PartFailed(Wire, frozen=True, kw_only=True):
    """The release fails on the devices of ``part``, which alone give it back. No more start."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.PART_FAILED
    judgement: Judgement
    part: TakenBack


class ClassFailed(PartFailed, frozen=True, kw_only=True):
    """The same for a class of devices: the release goes on to the devices outside of it."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.CLASS_FAILED


class SitesCompared(Wire, frozen=True, kw_only=True):
    """Groups of devices that went dark are closed. ``outages`` are those of the site, if any."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.SITES_COMPARED
    bets: SiteBets
    outages: tuple[Outage, ...] = ()


class RefusedByDevices(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.REFUSED_BY_DEVICES
    judgement: Judgement


class WaitReasonChanged(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.WAIT_REASON_CHANGED
    judgement: Judgement


class Approved(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.APPROVED
    approval: Approval


class RevertCompleted(Wire, frozen=True, kw_only=True):
    """``left`` online devices still run the release at the end of the revert.

    ``stranded`` devices keep the release, because they have no previous one. ``kept`` devices keep
    it, because another rollout gives it to them.
    """

    signal: ClassVar[RolloutSignal] = RolloutSignal.REVERT_COMPLETED
    left: int = 0
    stranded: int = 0
    kept: int = 0


Event = (
    Started | Paused | Resumed | Advanced | Extended | Finished | BetsStored | BakeJudged
    | BakeEnded | Halted | RevertRequested | GateFailed | PartFailed | ClassFailed
    | RefusedByDevices | Approved | SitesCompared | WaitReasonChanged | RevertCompleted
)  # fmt: skip


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


def check_allowed(state: RolloutState, signal: RolloutSignal, verb: str) -> None:
    """Raises OperatorError ``verb_not_now`` if the table does not allow ``signal`` now."""
    if TABLE[state.status, signal] is None:
        raise OperatorError(
            "verb_not_now", f"Rollout {state.id} is {state.status}: no transition {verb!r} now."
        )


def step(
    state: RolloutState, event: Event, now: float
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    """Returns the state after ``event``, and its audit lines.

    Raises OperatorError ``verb_not_now`` if the table has no such transition.
    """
    check_allowed(state, event.signal, event.signal.value)
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
            return _with_reason(state, "completed", "All waves passed.", "finish", event)
        case Halted():
            text = (
                "Halted by an operator: no further device gets the release; "
                "devices that have it keep it."
            )
            return _with_reason(state, "halted", text, "halt")
        case RevertRequested():
            state = _without_bake(replace(state, ended_at=None), now)
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
    grown = resized(waits_for(state, event.judgement), event.openings[-1])
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
    held = f" {bake.holdback} devices that were held back get the release." if bake.holdback else ""
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
    return "1 device keeps" if count == 1 else f"{count} devices keep"


def _line(state: RolloutState, actor: str, action: str, detail: str) -> AuditLine:
    return AuditLine(actor=actor, action=action, about=f"rollout/{state.id}", detail=detail)
