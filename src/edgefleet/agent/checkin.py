"""Check-ins: their time, their content, and the handling of the answer."""

from typing import Final

from edgefleet.agent import limits, spool
from edgefleet.agent import telemetry as tally
from edgefleet.agent.effect import SendCheckIn
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.state import Sent, running
from edgefleet.agent.step_context import StepContext
from edgefleet.agent.table import PHASES
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.device import CheckIn, OutcomeKind, Telemetry
from edgefleet.protocol.version import ONE_MODEL

_REPLAYED: Final = "checkin_replayed"


def report(
    context: StepContext,
    kind: OutcomeKind,
    reason: str = "",
    detail: str = "",
    *,
    accuracy: float | None = None,
    accuracy_before: float | None = None,
) -> None:
    """Put an outcome of the attempt into the spool, and check in now."""
    new = spool.outcome(context.attempt, kind, at=context.now, reason=reason, detail=detail)
    new = replace(new, accuracy=accuracy, accuracy_before=accuracy_before)
    context.keep(spool=spool.push(context.state.spool, new))
    context.forgettable(checkin_at=context.now)


def check_in_when_due(context: StepContext) -> None:
    """Send a check-in if one is due and none is in flight."""
    state, soft = context.state, context.soft
    if soft.sent is not None or soft.checkin_at > context.now:
        return
    seq = soft.seq + 1
    if seq > state.seq_reserved:
        context.keep(seq_reserved=seq + limits.SEQ_BLOCK - 1)
    outcomes = state.spool[: limits.OUTCOMES_PER_CHECKIN]
    serving = running(state)
    facts = None if state.facts_known else state.facts
    telemetry = soft.tallies[0] if soft.tallies else None
    scores = soft.windows.scores
    if telemetry is None and scores is not None:
        telemetry = _nothing_served(scores.to_release)
    if telemetry is not None and scores is not None and scores.to_release == telemetry.release:
        telemetry = replace(telemetry, scores=scores)
    context.forgettable(
        seq=seq,
        sent=Sent(
            seq=seq,
            outcomes=tuple(outcome.id for outcome in outcomes),
            facts=facts is not None,
            telemetry=telemetry,
        ),
    )
    context.do(
        SendCheckIn(
            check_in=CheckIn(
                protocol=ONE_MODEL,
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


def apply_answer(context: StepContext, event: CheckInAnswered) -> Sent | None:
    """Delete the acknowledged outcomes and plan the next check-in.

    Returns the answered check-in. None if the answer is not for the check-in in flight.
    """
    sent = context.soft.sent
    if sent is None or sent.seq != event.seq:
        return None
    answer = event.answer
    interval_s = min(limits.INTERVAL_MAX_S, max(limits.INTERVAL_MIN_S, answer.interval_s))
    context.keep(
        spool=spool.acknowledge(context.state.spool, answer.acked),
        interval_s=interval_s,
        facts_known=(context.state.facts_known or sent.facts) and not answer.want_facts,
    )
    if sent.telemetry is not None:
        context.forgettable(tallies=tally.subtract(context.soft.tallies, sent.telemetry))
        if sent.telemetry.scores is context.soft.windows.scores:
            windows = replace(context.soft.windows, scores=None)
            context.forgettable(windows=windows)
    unsent = any(outcome.id not in sent.outcomes for outcome in context.state.spool)
    pause = 0.0 if unsent else interval_s * (1.0 + limits.JITTER * (2.0 * event.draw - 1.0))
    context.forgettable(sent=None, link_failures=0, checkin_at=context.now + pause)
    return sent


def apply_failure(context: StepContext, event: CheckInFailed) -> None:
    """Plan a retry with exponential backoff."""
    sent = context.soft.sent
    if sent is None or sent.seq != event.seq:
        return
    failures = context.soft.link_failures
    context.forgettable(sent=None, link_failures=failures + 1)
    if event.code == _REPLAYED:
        _go_on_from(context, event.next_seq or event.seq + 1)
        if failures == 0:
            context.forgettable(checkin_at=context.now)
            return
    interval_s = context.state.interval_s
    longest = min(limits.BACKOFF_MAX_S, limits.BACKOFF_INTERVALS * interval_s)
    pause = min(longest, min(limits.BACKOFF_FIRST_S, interval_s) * 2.0 ** min(failures, 16))
    context.forgettable(checkin_at=context.now + pause * (0.5 + 0.5 * event.draw))


def _go_on_from(context: StepContext, seq: int) -> None:
    """Make ``seq`` the next sequence number."""
    context.forgettable(seq=seq - 1)
    context.keep(seq_reserved=max(context.state.seq_reserved, seq - 1))


def _nothing_served(release: str) -> Telemetry:
    """The telemetry of a release without requests: it carries scores that say so."""
    return Telemetry(
        release=release,
        requests=0,
        errors=0,
        confidence_sum=0.0,
        confidence_count=0,
        latency_us_p50=0,
        latency_us_p95=0,
        memory_mib=0,
    )
