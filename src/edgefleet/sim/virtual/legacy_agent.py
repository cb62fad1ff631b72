"""Devices whose agent is of protocol 1: around the agent core as it is, what an older one did else.

It told the hub that it starts, and started when that check-in had come to its end, whatever the
answer was. So the core hears here that its start was acknowledged, and the report goes with every
check-in until it really was.
"""

from typing import Final

from msgspec.structs import replace

from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.agent.state import AgentState
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Offer, Outcome, OutcomeKind, Phase
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.sim.virtual.active_device import Live

SPOKEN: Final = 1  # the protocol
_MOST: Final = 16  # outcomes in a check-in
_REPLAYED: Final = "checkin_replayed"


class Previous:
    """``rows`` says which devices they are."""

    def __init__(self, rows: Mask) -> None:
        self._rows = rows
        self.any = bool(rows.any())
        self._owed: dict[int, tuple[Outcome, ...]] = {}  # started, and not acknowledged yet

    def said(self, live: Live, said: CheckIn) -> CheckIn:
        """What an agent of protocol 1 would say in its place."""
        if not self._rows[live.row]:
            return said
        owed = self._owed.get(live.row, ())
        known = {outcome.id for outcome in owed}
        mine = tuple(
            replace(outcome, attempt=0) for outcome in said.outcomes if outcome.id not in known
        )
        phase = Phase.TRIAL if said.phase is Phase.STAGED else said.phase
        return replace(said, protocol=SPOKEN, phase=phase, outcomes=(*owed, *mine)[:_MOST])

    def heard(self, live: Live, event: Event) -> Event:
        """What the core hears: that it may start, as soon as it was told."""
        if not self._rows[live.row]:
            return event
        owed = self._owed.get(live.row, ())
        answer: CheckInAnswer | None = None
        match event:
            case happened.CheckInAnswered():
                answer = event.answer
                owed = tuple(one for one in owed if one.id not in event.answer.acked)
            case happened.CheckInFailed() if event.code != _REPLAYED:
                pass
            case _:
                return event
        self._owed[live.row] = owed
        start = _told(live.state, event.seq)
        if start is None:
            return event
        if answer is None or start.id not in answer.acked:
            self._owed[live.row] = (*owed, replace(start, attempt=0))
        acked = (start.id,) if answer is None else (*answer.acked, start.id)
        told = CheckInAnswer(
            interval_s=live.state.interval_s if answer is None else answer.interval_s,
            acked=acked,
            offer=_wanted(live.state),
        )
        return happened.CheckInAnswered(seq=event.seq, answer=told, draw=event.draw)


def _told(state: AgentState, seq: int) -> Outcome | None:
    """The start that the check-in on its way tells of, if that is ``seq``."""
    sent = state.soft.sent
    if state.stage is not Stage.ANNOUNCING or sent is None or sent.seq != seq:
        return None
    starts = (one for one in state.spool if one.kind is OutcomeKind.TRIAL_STARTED)
    return next((one for one in starts if one.id in sent.outcomes and _is_of(state, one)), None)


def _is_of(state: AgentState, start: Outcome) -> bool:
    return state.attempt is not None and start.attempt == state.attempt.number


def _wanted(state: AgentState) -> Offer | None:
    """The offer that is being followed, again."""
    attempt = state.attempt
    if attempt is None:
        return None
    return Offer(
        rollout=attempt.rollout,
        action=attempt.action,
        model=attempt.model,
        release=attempt.release,
        manifest_sha256=attempt.manifest_sha256,
        confirm_after_s=attempt.confirm_after_s,
        max_attempts=attempt.max_attempts,
    )
