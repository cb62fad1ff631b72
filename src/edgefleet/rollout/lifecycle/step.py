"""One step of a rollout: ``step(state, event, now) -> (state, effects)``, value to value.

Events carry all inputs: cuts are computed and gates are judged before the step.
"""

from typing import ClassVar, Unpack, assert_never

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import Approval, Evidence, Judgement, Verdict
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.lifecycle.state import BY_HAND, RolloutState, WaveState
from edgefleet.rollout.lifecycle.table import TABLE, RolloutSignal
from edgefleet.rollout.lifecycle.typed_replace import WaveChanges, replace

SAME_CUT = "same_cut"


class Opening(Wire, frozen=True, kw_only=True):
    """The values that a wave gets when it opens: see WaveState."""

    cut: int
    threshold: str
    population: int
    rows: int


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
    """The open wave passed. All ``openings`` but the last have the same cut as the open wave."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.ADVANCED
    judgement: Judgement
    openings: tuple[Opening, ...]
    by_hand: bool


class Finished(Wire, frozen=True, kw_only=True):
    """The last wave with new devices passed. ``openings`` have the same cut as the open wave."""

    signal: ClassVar[RolloutSignal] = RolloutSignal.FINISHED
    judgement: Judgement
    openings: tuple[Opening, ...]
    by_hand: bool
    rows: int  # devices enrolled at this time


class Halted(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.HALTED


class RevertRequested(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.REVERT_REQUESTED


class GateFailed(Wire, frozen=True, kw_only=True):
    signal: ClassVar[RolloutSignal] = RolloutSignal.GATE_FAILED
    judgement: Judgement


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
    Started | Paused | Resumed | Advanced | Finished | Halted | RevertRequested
    | GateFailed | RefusedByDevices | Approved | WaitReasonChanged | RevertCompleted
)  # fmt: skip


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
    if isinstance(event, WaitReasonChanged):
        judged = replace_wave(state, judgement=event.judgement)
        return replace(judged, revision=state.revision + 1), ()
    if isinstance(event, Approved):
        given = event.approval
        state = replace(state, approvals=(*state.approvals, given), revision=state.revision + 1)
        text = f"Wave {given.wave + 1}." if state.spec.approval.each_wave else "All waves."
        return state, (_line(state, given.person, "approve", text),)
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
        case Finished():
            state = _walked(state, event.judgement, event.openings, now, closed=True)
            state = replace(state, ended_at=now, rows_at_end=event.rows)
            return _with_reason(state, "completed", "All waves passed.", "finish", event)
        case Halted():
            text = (
                "Halted by an operator: no further device gets the release; "
                "devices that have it keep it."
            )
            return _with_reason(state, "halted", text, "halt")
        case RevertRequested():
            return _with_reason(
                replace(state, ended_at=None), BY_HAND, "Reverted by an operator.", "revert"
            )
        case GateFailed():
            return _failed(state, event.judgement, now, "revert")
        case RefusedByDevices():
            state, audit = _failed(state, event.judgement, now, "refuse")
            return replace(state, ended_at=now), audit
        case RevertCompleted():
            text = f"{state.text} {_left_text(event)}"
            state = replace(state, ended_at=now, text=text)
            return state, (_line(state, "gate", "reverted", text),)
        case _:
            assert_never(event)


def _with_reason(
    state: RolloutState, reason: str, text: str, action: str, by: Finished | None = None
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    state = replace(state, reason=reason, text=text)
    actor = "gate" if by is not None and not by.by_hand else "operator"
    return state, (_line(state, actor, action, text),)


def _opened(
    state: RolloutState, opening: Opening, now: float, actor: str, action: str
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    state = _open_next(state, opening, now)
    text = _wave_text(state)
    state = replace(state, reason="wave_open", text=text)
    return state, (_line(state, actor, action, text),)


def _advanced(
    state: RolloutState, event: Advanced, now: float
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    state = _walked(state, event.judgement, event.openings, now, closed=False)
    text = _wave_text(state)
    state = replace(state, reason="wave_open", text=text)
    actor = "operator" if event.by_hand else "gate"
    return state, (_line(state, actor, "advance", f"{event.judgement.text} {text}"),)


def _failed(
    state: RolloutState, judgement: Judgement, now: float, action: str
) -> tuple[RolloutState, tuple[AuditLine, ...]]:
    state = replace_wave(state, judgement=judgement, closed_at=now)
    state = replace(state, reason=judgement.reason, text=judgement.text)
    return state, (_line(state, "gate", action, judgement.text),)


def _walked(
    state: RolloutState,
    judgement: Judgement,
    openings: tuple[Opening, ...],
    now: float,
    *,
    closed: bool,
) -> RolloutState:
    """Close the open wave, then open each of ``openings``, closing all but the last at once."""
    state = replace_wave(state, judgement=judgement, closed_at=now)
    for number, opening in enumerate(openings):
        state = _open_next(state, opening, now)
        if closed or number < len(openings) - 1:
            same = replace(judgement, reason=SAME_CUT, at=now)
            state = replace_wave(state, judgement=same, closed_at=now)
    return state


def _open_next(state: RolloutState, opening: Opening, now: float) -> RolloutState:
    index = 0 if state.wave is None else state.wave + 1
    state = replace(state, wave=index)
    return replace_wave(
        state,
        cut=opening.cut,
        threshold=opening.threshold,
        population=opening.population,
        rows=opening.rows,
        opened_at=now,
    )


def replace_wave(state: RolloutState, **changes: Unpack[WaveChanges]) -> RolloutState:
    """The state with changes to its open wave, which must exist."""
    if state.wave is None:
        msg = f"{state.id} has no open wave"
        raise AssertionError(msg)
    waves = list(state.waves)
    waves[state.wave] = replace(waves[state.wave], **changes)
    return replace(state, waves=tuple(waves))


def _wave_text(state: RolloutState) -> str:
    wave: WaveState | None = state.open_wave
    if wave is None or state.wave is None:
        return ""
    return (
        f"Wave {state.wave + 1} of {len(state.waves)} is open: {wave.name}, "
        f"{wave.cut} of {wave.population} devices."
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
