"""The log lines of a step: what happened to the device, in one sentence each.

A step in which nothing happens that a person needs, such as a heartbeat, has none.
"""

import logging
from collections.abc import Iterator

from edgefleet.agent.event import (
    Activated,
    ActivationFailed,
    Booted,
    CheckInAnswered,
    CheckInFailed,
    DiskChecked,
    Event,
    Proved,
    ServingProbed,
    StagingFailed,
)
from edgefleet.agent.own_labels import narrate_labels
from edgefleet.agent.state import (
    NEW_MODEL,
    AgentState,
    ModelState,
    active_release,
)
from edgefleet.agent.table import Stage
from edgefleet.base.errors import CATALOG, Party
from edgefleet.protocol.device import Outcome, OutcomeKind, isolation_text
from edgefleet.protocol.disk_fault import disk_fault_text
from edgefleet.protocol.serving import ServingStatus, model_status
from edgefleet.protocol.serving_health import ENDS_WITHIN_S, cause_text

Line = tuple[int, str]
_MIB = 1 << 20


def narrate(before: AgentState, event: Event, after: AgentState, now: float) -> tuple[Line, ...]:
    """The log lines of a step, as (level, text)."""
    lines = [
        *_disk(before, event, after),
        *_hub(before, event, after, now),
        *_serving(before, event, after, now),
    ]
    match event:
        case Booted():
            lines += _boot(after)
        case CheckInAnswered():
            lines += narrate_labels(before, event)
        case StagingFailed():
            lines += _staging_failed(event, after)
        case Proved() if event.result.passed:
            result = event.result
            accuracy = "" if result.accuracy is None else f", accuracy {result.accuracy:.3f}"
            latency = f", p50 {result.latency_us_p50 / 1000:.1f} ms"
            cases = f"{result.cases} golden cases{accuracy}{latency}"
            lines.append((logging.INFO, f"{_about(event.model, before)} is proved: {cases}."))
        case _:
            pass
    known = {outcome.id for outcome in before.spool}
    for model, mine in after.models.items():
        old = before.models.get(model, NEW_MODEL)
        if mine is not old:
            lines += _model(model, old, mine)
    for outcome in after.spool:
        if outcome.id not in known:
            lines += _outcome(outcome, before)
    return tuple(lines)


def _boot(after: AgentState) -> Iterator[Line]:
    for model, mine in sorted(after.models.items()):
        if (installed := active_release(mine)) is not None:
            yield logging.INFO, f"{model} {installed.release} is the confirmed release."
    if not after.models:
        yield logging.INFO, "No release is installed. The agent waits for an offer of the hub."


def _disk(before: AgentState, event: Event, after: AgentState) -> Iterator[Line]:
    was, fault = before.soft.disk_fault, after.soft.disk_fault
    if fault and fault != was:
        yield logging.ERROR, f"{fault}: {_disk_detail(event)}{disk_fault_text(fault)}"
    elif was and not fault:
        yield logging.INFO, "The disk can be written again."


def _disk_detail(event: Event) -> str:
    """The path and the error of the operating system, as a sentence with a space behind it."""
    match event:
        case Booted(disk_detail=detail) | DiskChecked(detail=detail) if detail:
            return f"{detail} "
        case _:
            return ""


def _hub(before: AgentState, event: Event, after: AgentState, now: float) -> Iterator[Line]:
    """A hub that is lost is one that answered before. An answer with an error is no loss."""
    was, loss = before.soft.hub_loss, after.soft.hub_loss
    if loss is not None and was is None and isinstance(event, CheckInFailed):
        kind = CATALOG.get(event.code)
        what = "The hub is lost" if before.soft.hub_reached else "The hub cannot be reached yet"
        if kind is not None and kind.party is not Party.NETWORK:
            what = "No check-in succeeds"
        serves = "serves on and retries" if after.models else "retries"
        yield logging.WARNING, f"{what} ({loss.text}). The agent {serves} with backoff."
    elif loss is None and was is not None and before.soft.booted:
        again = "again " if before.soft.hub_reached else ""
        yield logging.INFO, f"The hub answers {again}after {now - was.at:.0f} s."


def _drained(before: ServingStatus | None, status: ServingStatus) -> Iterator[Line]:
    """The releases for which the release before them was unloaded first."""
    for one in status.models:
        how, _, figures = one.load.partition(": ")
        was = model_status(before, one.model)
        if how == "drain" and (was is None or was.load != one.load):
            yield logging.INFO, f"{one.model} {one.release} was loaded alone. {figures}"


def _serving(before: AgentState, event: Event, after: AgentState, now: float) -> Iterator[Line]:
    was, health = before.soft.health, after.soft.health
    if isinstance(event, Activated | ActivationFailed | ServingProbed):
        ran = f", while {' and '.join(event.ran)} ran" if event.ran else ""
        count = sum(now - end.at < ENDS_WITHIN_S for end in health.ends)
        often = f" ({count} times in the last hour)" if count > 1 else ""
        for end in health.ends:
            if end not in was.ends:
                which = f"The worker of {end.worker}" if end.worker else "The serving process"
                during = "" if end.worker else ran
                text = f"{which} ended by itself: {cause_text(end.cause)}{during}{often}."
                yield logging.WARNING, text
    if isinstance(event, Activated):
        yield from _drained(before.soft.serving, event.status)
    if health.down_since is not None and was.down_since is None:
        yield logging.WARNING, f"Serving is down: no release of {', '.join(health.down)} is served."
    elif health.down_since is None and was.down_since is not None:
        served = ", ".join(
            f"{name} {installed.release}"
            for name, mine in sorted(after.models.items())
            if name in was.down and (installed := active_release(mine)) is not None
        )
        again = f": {served}" if served else ""
        yield logging.INFO, f"Serving is up again after {now - was.down_since:.1f} s{again}."
    if health.down_cause and health.down_cause != was.down_cause:
        yield logging.ERROR, f"Serving does not start: {health.down_cause}"
    for one in after.soft.crashes.isolated:
        if one not in before.soft.crashes.isolated:
            yield logging.WARNING, f"{one.model}: {isolation_text(one.reason)}"


def _staging_failed(event: StagingFailed, after: AgentState) -> Iterator[Line]:
    """Without an attempt any more, the outcome has the cause."""
    if after.models.get(event.model, NEW_MODEL).attempt is not None:
        about = _about(event.model, after)
        text = f"{about} is not staged: {event.code}: {event.detail} The agent tries again."
        yield logging.WARNING, text


def _model(model: str, before: ModelState, after: ModelState) -> Iterator[Line]:
    attempt = after.attempt or before.attempt
    if attempt is None or before.stage is after.stage:
        return
    name = f"{model} {attempt.release}"
    if before.attempt is None:
        back = " again" if attempt.action == "revert" else ""
        yield logging.INFO, f"{name} is offered{back} by rollout {attempt.rollout}."
    if before.stage is Stage.SHADOWING and attempt.shadow_text:
        yield logging.INFO, f"{name}: {attempt.shadow_text}"
    match after.stage:
        case Stage.SHADOWING if attempt.shadow is not None:
            share = f"{attempt.shadow.share:.0%} of the live requests"
            yield logging.INFO, f"{name} also answers {share} as a shadow, for no caller."
        case Stage.FETCHING if attempt.installed is not None:
            installed = attempt.installed
            size = installed.golden.artifact.size_bytes + installed.variant.artifact.size_bytes
            yield logging.INFO, f"{name} is being downloaded: {_text(size)}."
        case Stage.PROVING:
            yield logging.INFO, f"{name} is downloaded. Its golden set runs on this device."
        case Stage.STAGED:
            yield logging.INFO, f"{name} waits until no other model of the device is in trial."
        case Stage.ANNOUNCING:
            yield logging.INFO, f"{name} waits for the hub to admit its trial."
        case Stage.WATCHING:
            lasts = f"{attempt.confirm_after_s:g} s of good health"
            yield logging.INFO, f"{name} is in trial, and is confirmed after {lasts}."
        case _:
            pass


def _outcome(outcome: Outcome, before: AgentState) -> Iterator[Line]:
    name, cause = _named(outcome, before), f"{outcome.reason}: {outcome.detail}".rstrip(": ")
    match outcome.kind:
        case OutcomeKind.CONFIRMED:
            yield logging.INFO, f"{name} is confirmed."
        case OutcomeKind.TRIAL_FAILED:
            yield logging.WARNING, f"{name} is rolled back: {cause}"
        case OutcomeKind.REVERTED:
            yield logging.WARNING, f"{name} is rolled back on the hub's order."
        case OutcomeKind.REFUSED:
            yield logging.WARNING, f"{name} is refused: {cause}"
        case OutcomeKind.DEFERRED:
            yield logging.INFO, f"{name} is deferred: {cause}"
        case OutcomeKind.WITHDRAWN:
            yield logging.INFO, f"{name} is not offered any more."
        case OutcomeKind.TRIAL_STARTED:
            return


def _named(outcome: Outcome, before: AgentState) -> str:
    """The model and release of an outcome."""
    for model, mine in before.models.items():
        if mine.attempt is not None and mine.attempt.rollout == outcome.rollout:
            return f"{model} {outcome.release}"
    return f"Release {outcome.release}"


def _text(size_bytes: int) -> str:
    if size_bytes < _MIB:
        return f"{size_bytes / 1024:.1f} KiB"
    return f"{size_bytes / _MIB:.1f} MiB"


def _about(model: str, state: AgentState) -> str:
    mine = state.models.get(model, NEW_MODEL)
    return model if mine.attempt is None else f"{model} {mine.attempt.release}"
