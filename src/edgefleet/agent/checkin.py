"""Check-ins: their time, their content, and the handling of the answer.

No other module knows how a check-in names the models on the device: those that changed since the
last answered check-in, and a digest of all.
"""

from collections.abc import Mapping
from typing import Final

from edgefleet.agent import labels, limits, serving_health, spool
from edgefleet.agent import telemetry as tally
from edgefleet.agent.effect import SendCheckIn
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.state import HubLoss, ModelState, Reports, Sent, given_by, running
from edgefleet.agent.step_context import DeviceContext, StepContext
from edgefleet.agent.table import IN_TRIAL, PHASES
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.device import (
    CheckIn,
    ModelReport,
    OutcomeKind,
    Telemetry,
    WrongBytes,
    digest,
)
from edgefleet.protocol.version import PROTOCOL

_REPLAYED: Final = "checkin_replayed"


def report(
    context: StepContext,
    kind: OutcomeKind,
    reason: str = "",
    detail: str = "",
    *,
    accuracy: float | None = None,
    accuracy_before: float | None = None,
    wrong_bytes: WrongBytes | None = None,
) -> None:
    """Put an outcome of the attempt into the spool, and check in now."""
    device = context.device
    at = context.now
    new = spool.outcome(context.attempt, kind, wrong_bytes, at=at, reason=reason, detail=detail)
    new = replace(new, accuracy=accuracy, accuracy_before=accuracy_before)
    device.keep(spool=spool.push(device.state.spool, new))
    device.forgettable(checkin_at=context.now)


def check_in_when_due(device: DeviceContext) -> None:
    """Send a check-in if one is due and none is in flight."""
    state, soft = device.state, device.soft
    if soft.sent is not None or max(soft.checkin_at, soft.hub_busy_until) > device.now:
        return
    seq = soft.seq + 1
    if seq > state.seq_reserved:
        device.keep(seq_reserved=seq + limits.SEQ_BLOCK - 1)
    outcomes = state.spool[: limits.OUTCOMES_PER_CHECKIN]
    facts = None if state.facts_known else state.facts
    reporting, telemetry = _telemetry(device)
    reports = _reports(device)
    changed = _changed(soft.known, reports.models)
    counts, truth_done = labels.to_report(device), device.soft.truth_done
    device.forgettable(
        seq=seq,
        reported=reporting or soft.reported,
        reports=reports,
        sent=Sent(
            seq=seq,
            outcomes=tuple([outcome.id for outcome in outcomes]),
            facts=facts,
            model=reporting,
            telemetry=telemetry,
            labels=counts,
            truth_done=truth_done,
        ),
    )
    check_in = CheckIn(
        protocol=PROTOCOL,
        seq=seq,
        digest=reports.digest,
        models=changed,
        full=soft.known is None,
        given=_given(device.models, changed) if changed else (),
        outcomes=outcomes,
        telemetry=None if telemetry is None else replace(telemetry, model=reporting),
        facts=facts,
        labels=counts,
        truth_done=truth_done,
        serving=serving_health.to_report(device.models, device.soft.health, device.now),
    )
    device.do(SendCheckIn(check_in=check_in))


def _reports(device: DeviceContext) -> Reports:
    """The models on the device, by name. Computed again only after a change of one."""
    models = device.models
    if device.soft.reports is not None and device.soft.reports.states is models:
        return device.soft.reports
    reports = [
        ModelReport(model=name, release=running(models[name]), phase=PHASES[models[name].stage])
        for name in sorted(models)
    ]
    found = tuple([report for report in reports if report.is_on_device])
    return Reports(states=models, models=found, digest=digest(found))


def _given(
    models: Mapping[str, ModelState], reports: tuple[ModelReport, ...]
) -> tuple[tuple[str, str], ...]:
    """The reported models, each with the rollout that gave it its release, if known."""
    named = [one.model for one in reports if one.model in models]
    found = ((name, given_by(models[name])) for name in named)
    return tuple([(name, rollout) for name, rollout in found if rollout])


def _changed(
    known: tuple[ModelReport, ...] | None, reports: tuple[ModelReport, ...]
) -> tuple[ModelReport, ...]:
    """The reports that differ from ``known``, and one for each model that is gone.

    All reports if the hub has to know the full list.
    """
    if known is None or known == reports:
        return reports if known is None else ()
    left = {report.model for report in reports}
    gone = [ModelReport(model=report.model) for report in known if report.model not in left]
    return (*[report for report in reports if report not in known], *gone)


def _in_doubt(
    known: tuple[ModelReport, ...], sent: tuple[ModelReport, ...]
) -> tuple[ModelReport, ...]:
    """The models that the hub knows for sure after a check-in without an answer.

    A model that changed counts as gone, so the next check-in names it, even if it is as before.
    """
    changed = {report.model for report in {*known} ^ {*sent}}
    kept = [report for report in known if report.model not in changed]
    return (*kept, *[ModelReport(model=model) for model in sorted(changed)])


def _telemetry(device: DeviceContext) -> tuple[str, Telemetry | None]:
    """The telemetry of one model: of the one on trial, otherwise of each in turn.

    Returns the model and its telemetry, or "" and None if no model has any.
    """
    names = [
        name
        for name, soft in device.soft_models.items()
        if soft.tallies or soft.windows.scores or soft.costs.scores
    ]
    if not names:
        return "", None
    name = names[0]
    if len(names) > 1:
        last, models = device.soft.reported, device.models
        name = min(names, key=lambda name: (models[name].stage not in IN_TRIAL, name <= last, name))
    soft = device.soft_models[name]
    scores, costs = soft.windows.scores, soft.costs.scores
    telemetry = soft.tallies[0] if soft.tallies else None
    unsent = scores or costs
    if telemetry is None and unsent is not None:
        telemetry = tally.nothing_served(unsent.to_release)  # it carries scores that say so
    if telemetry is not None and scores is not None and scores.to_release == telemetry.release:
        telemetry = replace(telemetry, scores=scores)
    if telemetry is not None and costs is not None and costs.to_release == telemetry.release:
        telemetry = replace(telemetry, costs=costs)
    return name, telemetry


def apply_answer(device: DeviceContext, event: CheckInAnswered) -> Sent | None:
    """Delete the acknowledged outcomes and plan the next check-in.

    Returns the answered check-in. None if the answer is not for the check-in in flight.
    """
    state, sent = device.state, device.soft.sent
    if sent is None or sent.seq != event.seq:
        return None
    answer = event.answer
    wants_facts = answer.want in ("facts", "all")
    wants_models = answer.want in ("models", "all")
    has_facts = sent.facts is not None and sent.facts == state.facts  # they may have changed since
    reports = device.soft.reports
    interval_s = min(limits.INTERVAL_MAX_S, max(limits.INTERVAL_MIN_S, answer.interval_s))
    device.keep(
        spool=spool.acknowledge(state.spool, answer.acked),
        interval_s=interval_s,
        facts_known=(state.facts_known or has_facts) and not wants_facts,
    )
    if sent.telemetry is not None:
        context = device.model(sent.model)
        context.forgettable(tallies=tally.subtract(context.soft.tallies, sent.telemetry))
        if sent.telemetry.scores is context.soft.windows.scores:
            context.forgettable(windows=replace(context.soft.windows, scores=None))
        if sent.telemetry.costs is context.soft.costs.scores:
            context.forgettable(costs=replace(context.soft.costs, scores=None))
    labels.apply_answer(device, sent, answer)
    unsent = any(outcome.id not in sent.outcomes for outcome in device.state.spool)
    pause = 0.0 if unsent else interval_s * (1.0 + limits.JITTER * (2.0 * event.draw - 1.0))
    device.forgettable(
        sent=None,
        link_failures=0,
        hub_loss=None,
        hub_reached=True,
        checkin_at=device.now + pause,
        known=None if wants_models or reports is None else reports.models,
    )
    return sent


def apply_failure(device: DeviceContext, event: CheckInFailed) -> None:
    """Plan a retry with exponential backoff, or after the pause that the hub asks for."""
    sent = device.soft.sent
    if sent is None or sent.seq != event.seq:
        return
    failures, reports = device.soft.link_failures, device.soft.reports
    device.forgettable(sent=None, link_failures=failures + 1)
    if reports is not None and device.soft.known not in (None, reports.models):
        device.forgettable(known=_in_doubt(device.soft.known or (), reports.models))
    if event.code == _REPLAYED:
        _go_on_from(device, event.next_seq or event.seq + 1)
        if failures == 0:
            device.forgettable(checkin_at=device.now)
            return
    if device.soft.hub_loss is None:
        text = f"{event.code}: {event.detail}".rstrip(":. ")
        device.forgettable(hub_loss=HubLoss(at=device.now, text=text))
    interval_s = device.state.interval_s
    longest = min(limits.BACKOFF_MAX_S, limits.BACKOFF_INTERVALS * interval_s)
    pause = min(longest, min(limits.BACKOFF_FIRST_S, interval_s) * 2.0 ** min(failures, 16))
    pause *= 0.5 + 0.5 * event.draw
    asked_s = min(limits.RETRY_AFTER_MAX_S, event.retry_after_s)
    if asked_s > 0.0:  # never earlier, and not all devices at once
        asked_s *= 1.0 + limits.JITTER * event.draw
        device.forgettable(hub_busy_until=device.now + asked_s)
    device.forgettable(checkin_at=device.now + max(pause, asked_s))


def _go_on_from(device: DeviceContext, seq: int) -> None:
    """Make ``seq`` the next sequence number."""
    device.forgettable(seq=seq - 1)
    device.keep(seq_reserved=max(device.state.seq_reserved, seq - 1))
