"""Devices with an agent of protocol 1, emulated around the current agent core.

The older agent announced its start, and started after that check-in, whatever the answer was. So
this module acknowledges the start to the core, and adds the report to every check-in until the hub
has acknowledged it.
"""

from typing import Final

from msgspec.structs import replace

from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.agent.state import AgentState
from edgefleet.agent.table import Stage
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Offer, Outcome, OutcomeKind, Phase
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.sim.virtual.active_device import ActiveDevice

SPOKEN: Final = 1  # the protocol of these agents
_MOST: Final = 16  # most outcomes in a check-in
_REPLAYED: Final = "checkin_replayed"


class LegacyAgents:
    """``rows`` is the mask of these devices."""

    def __init__(self, rows: Mask) -> None:
        self._rows = rows
        self.any = bool(rows.any())
        self._owed: dict[
            int, tuple[Outcome, ...]
        ] = {}  # reported starts that are not acknowledged yet

    def translate_check_in(self, live: ActiveDevice, check_in: CheckIn) -> CheckIn:
        """The check-in that an agent of protocol 1 sends instead. Unchanged for other agents."""
        if not self._rows[live.row]:
            return check_in
        owed = self._owed.get(live.row, ())
        known = {outcome.id for outcome in owed}
        mine = tuple(
            replace(outcome, attempt=0) for outcome in check_in.outcomes if outcome.id not in known
        )
        phase = Phase.TRIAL if check_in.phase is Phase.STAGED else check_in.phase
        return replace(check_in, protocol=SPOKEN, phase=phase, outcomes=(*owed, *mine)[:_MOST])

    def translate_event(self, live: ActiveDevice, event: Event) -> Event:
        """The event for the core: an announced start counts as acknowledged."""
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
        start = _announced_start(live.state, event.seq)
        if start is None:
            return event
        if answer is None or start.id not in answer.acked:
            self._owed[live.row] = (*owed, replace(start, attempt=0))
        acked = (start.id,) if answer is None else (*answer.acked, start.id)
        acknowledged = CheckInAnswer(
            interval_s=live.state.interval_s if answer is None else answer.interval_s,
            acked=acked,
            offer=_wanted(live.state),
        )
        return happened.CheckInAnswered(seq=event.seq, answer=acknowledged, draw=event.draw)


def _announced_start(state: AgentState, seq: int) -> Outcome | None:
    """The start that the check-in ``seq`` announces. None if it announces none."""
    sent = state.soft.sent
    if state.stage is not Stage.ANNOUNCING or sent is None or sent.seq != seq:
        return None
    starts = (one for one in state.spool if one.kind is OutcomeKind.TRIAL_STARTED)
    return next((one for one in starts if one.id in sent.outcomes and _is_of(state, one)), None)


def _is_of(state: AgentState, start: Outcome) -> bool:
    return state.attempt is not None and start.attempt == state.attempt.number


def _wanted(state: AgentState) -> Offer | None:
    """The offer of the current attempt. None if there is no attempt."""
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
