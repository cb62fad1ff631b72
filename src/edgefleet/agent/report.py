"""Check-ins: when to send one, what stands in it, what its answer changes."""

from typing import Final

import msgspec

from edgefleet.agent import limits, spool
from edgefleet.agent import telemetry as tally
from edgefleet.agent.effect import SendCheckIn
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.state import Sent, running
from edgefleet.agent.step_context import Turn
from edgefleet.agent.table import PHASES
from edgefleet.protocol.device import CheckIn, OutcomeKind
from edgefleet.protocol.version import PROTOCOL

_REPLAYED: Final = "checkin_replayed"


def report(
    turn: Turn,
    kind: OutcomeKind,
    reason: str = "",
    detail: str = "",
    *,
    accuracy: float | None = None,
    accuracy_before: float | None = None,
) -> None:
    """Put an outcome of the attempt into the spool, and check in at once."""
    new = spool.outcome(turn.attempt, kind, at=turn.now, reason=reason, detail=detail)
    new = msgspec.structs.replace(new, accuracy=accuracy, accuracy_before=accuracy_before)
    turn.keep(spool=spool.push(turn.state.spool, new))
    turn.forgettable(checkin_at=turn.now)


def check_in_when_due(turn: Turn) -> None:
    """Send a check-in when one is due and none is on its way."""
    state, soft = turn.state, turn.soft
    if soft.sent is not None or soft.checkin_at > turn.now:
        return
    seq = soft.seq + 1
    if seq > state.seq_reserved:
        turn.keep(seq_reserved=seq + limits.SEQ_BLOCK - 1)
    outcomes = state.spool[: limits.OUTCOMES_PER_CHECKIN]
    serving = running(state)
    facts = None if state.facts_known else state.facts
    telemetry = soft.tallies[0] if soft.tallies else None
    scores = soft.windows.scores
    if telemetry is not None and scores is not None and scores.to_release == telemetry.release:
        telemetry = msgspec.structs.replace(telemetry, scores=scores)
    turn.forgettable(
        seq=seq,
        sent=Sent(
            seq=seq,
            outcomes=tuple(outcome.id for outcome in outcomes),
            facts=facts is not None,
            telemetry=telemetry,
        ),
    )
    turn.do(
        SendCheckIn(
            check_in=CheckIn(
                protocol=PROTOCOL,
                seq=seq,
                phase=PHASES[state.stage],
                model=serving[0] if serving else None,
                release=serving[1] if serving else None,
                outcomes=outcomes,
                telemetry=telemetry,
                facts=facts,
            )
        )
    )


def take_answer(turn: Turn, event: CheckInAnswered) -> Sent | None:
    """Forget what is durable at the hub and plan the next check-in.

    Returns what was sent, or None when the answer is not to the check-in on its way.
    """
    sent = turn.soft.sent
    if sent is None or sent.seq != event.seq:
        return None
    answer = event.answer
    interval_s = min(limits.INTERVAL_MAX_S, max(limits.INTERVAL_MIN_S, answer.interval_s))
    turn.keep(
        spool=spool.acknowledge(turn.state.spool, answer.acked),
        interval_s=interval_s,
        facts_known=(turn.state.facts_known or sent.facts) and not answer.want_facts,
    )
    if sent.telemetry is not None:
        turn.forgettable(tallies=tally.subtract(turn.soft.tallies, sent.telemetry))
        if sent.telemetry.scores is turn.soft.windows.scores:
            windows = msgspec.structs.replace(turn.soft.windows, scores=None)
            turn.forgettable(windows=windows)
    unsent = any(outcome.id not in sent.outcomes for outcome in turn.state.spool)
    pause = 0.0 if unsent else interval_s * (1.0 + limits.JITTER * (2.0 * event.draw - 1.0))
    turn.forgettable(sent=None, link_failures=0, checkin_at=turn.now + pause)
    return sent


def take_failure(turn: Turn, event: CheckInFailed) -> None:
    """Plan another try, later each time."""
    sent = turn.soft.sent
    if sent is None or sent.seq != event.seq:
        return
    failures = turn.soft.link_failures
    turn.forgettable(sent=None, link_failures=failures + 1)
    if event.code == _REPLAYED:
        _go_on_from(turn, event.next_seq or event.seq + 1)
        if failures == 0:
            turn.forgettable(checkin_at=turn.now)
            return
    interval_s = turn.state.interval_s
    longest = min(limits.BACKOFF_MAX_S, limits.BACKOFF_INTERVALS * interval_s)
    pause = min(longest, min(limits.BACKOFF_FIRST_S, interval_s) * 2.0 ** min(failures, 16))
    turn.forgettable(checkin_at=turn.now + pause * (0.5 + 0.5 * event.draw))


def _go_on_from(turn: Turn, seq: int) -> None:
    """Let ``seq`` be the next number sent, and none before it that was reserved."""
    turn.forgettable(seq=seq - 1)
    turn.keep(seq_reserved=max(turn.state.seq_reserved, seq - 1))
