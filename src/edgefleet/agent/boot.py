"""After a start: from whatever was stored and found to a state that is sound.

The agent may have died between any two writes, and so may the serving process. What the state says
is done again where that does no harm; a trial that was cut off is tried again or given up.
"""

from edgefleet.agent import limits
from edgefleet.agent.attempt import cancel, hush, resume
from edgefleet.agent.effect import MovePointer
from edgefleet.agent.event import Booted
from edgefleet.agent.report import report
from edgefleet.agent.state import Slot, SlotName, Soft, active_held, other, slot
from edgefleet.agent.step_context import Turn
from edgefleet.agent.switch import activate, go_back, restore, return_to_active, serves
from edgefleet.agent.table import BEFORE_TRIAL, IN_TRIAL, Signal, Stage
from edgefleet.protocol.device import OutcomeKind, Reason


def on_booted(turn: Turn, event: Booted) -> None:
    state = turn.state
    spread_s = min(state.interval_s, limits.BOOT_SPREAD_S)
    turn.keep(
        facts=event.facts,
        facts_known=state.facts_known and state.facts == event.facts,
        pace=event.pace,
    )
    turn.soft = Soft(
        booted=True,
        seq=state.seq_reserved,
        serving=event.serving,
        checkin_at=turn.now + event.draw * spread_s,
    )
    _drop_damaged(turn, event)
    state = turn.state
    if state.stage in BEFORE_TRIAL:
        _resume_work(turn)
    elif state.stage in IN_TRIAL:
        _resume_trial(turn)
    elif state.stage is Stage.REVERTING:
        return_to_active(turn)
    state = turn.state
    if state.stage in BEFORE_TRIAL or state.stage is Stage.IDLE:
        if event.pointer != state.active:
            turn.do(MovePointer(slot=state.active))
        held = active_held(state)
        if held is not None and not serves(event.serving, held):
            restore(turn)


def _drop_damaged(turn: Turn, event: Booted) -> None:
    """Forget slots whose bytes are not whole; lean on the other when the confirmed one is."""
    names: tuple[SlotName, ...] = ("a", "b")
    for name in names:
        if slot(turn.state, name).held is not None and name not in event.whole:
            turn.set_slot(name, Slot())
    active = turn.state.active
    if active is None or slot(turn.state, active).held is not None:
        return
    spare = other(active)
    usable = slot(turn.state, spare).confirmed and turn.state.stage not in IN_TRIAL
    turn.keep(active=spare if usable else None)
    if usable and turn.state.stage in BEFORE_TRIAL:
        cancel(turn)


def _resume_work(turn: Turn) -> None:
    whole = slot(turn.state, turn.attempt.slot).held is not None
    if turn.state.stage is Stage.ANNOUNCING and whole:
        report(turn, OutcomeKind.TRIAL_STARTED)  # unless it stands in the spool already
        return
    if turn.state.stage in (Stage.PROVING, Stage.ANNOUNCING) and not whole:
        hush(turn)
        turn.move(Signal.DAMAGED)
    resume(turn)


def _resume_trial(turn: Turn) -> None:
    attempt = turn.attempt
    if slot(turn.state, attempt.slot).held is None:
        go_back(turn, Reason.DIGEST, "The slot on trial lost bytes while the power was off.")
    elif attempt.tries >= attempt.max_attempts:
        go_back(turn, Reason.INTERRUPTED, f"Interrupted {attempt.tries} times.")
    else:
        turn.move(Signal.INTERRUPTED)
        turn.change_attempt(tries=attempt.tries + 1)
        activate(turn, attempt.slot)
