"""The log on standard error: one line per event, as text or as JSON."""

import json
import logging
import time
from typing import Final

from edgefleet.agent.event import (
    CheckInAnswered,
    CheckInFailed,
    Event,
    ServingProbed,
    StagingFailed,
)
from edgefleet.agent.own_labels import narrate_labels
from edgefleet.agent.state import NEW_MODEL, AgentState, ModelState, running
from edgefleet.agent.table import Stage

LOGGER: Final = logging.getLogger("edgefleet.agent")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return f"{at} {record.levelname.lower():7} {record.getMessage()}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "text": record.getMessage(),
        }
        return json.dumps(fields)


def start(*, as_json: bool) -> None:
    """Write the agent's log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if as_json else _Lines())
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def narrate(before: AgentState, event: Event, after: AgentState) -> tuple[tuple[int, str], ...]:
    """The log lines of a step, as (level, text)."""
    lines: list[tuple[int, str]] = []
    match event:
        case StagingFailed():
            lines.append((logging.WARNING, f"work failed: {event.code}: {event.detail}"))
        case CheckInFailed() if before.soft.link_failures == 0:
            lines.append((logging.WARNING, f"check-in failed: {event.code}; retrying with backoff"))
        case ServingProbed() if event.ran:
            names = ", ".join(event.ran)
            lines.append((logging.WARNING, f"the serving process ended while these ran: {names}"))
        case CheckInAnswered():
            if before.soft.link_failures > 0:
                lines.append((logging.INFO, "check-in answered again"))
            lines += narrate_labels(before, event)
        case _:
            pass
    known = {outcome.id for outcome in before.spool}
    for outcome in after.spool:
        if outcome.id not in known:
            why = f": {outcome.reason}: {outcome.detail}".rstrip(": ") if outcome.reason else ""
            level = logging.WARNING if outcome.reason else logging.INFO
            lines.append((level, f"release {outcome.release} {outcome.kind}{why}"))
    lines += [
        (logging.WARNING, f"model {one.model} gets a process of its own: {one.reason}")
        for one in after.soft.crashes.isolated
        if one not in before.soft.crashes.isolated
    ]
    for model, mine in after.models.items():
        old = before.models.get(model, NEW_MODEL)
        if mine is not old:
            lines += _narrate_model(model, old, mine)
    return tuple(lines)


def _narrate_model(model: str, before: ModelState, after: ModelState) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    if before.stage is not after.stage:
        attempt = after.attempt or before.attempt
        about = f" (release {attempt.release}, rollout {attempt.rollout})" if attempt else ""
        lines.append((logging.INFO, f"{model}: {before.stage} -> {after.stage}{about}"))
    now = running(after)
    if now != running(before) and after.stage in (Stage.IDLE, Stage.WATCHING):
        text = f"serves {model} {now}" if now else f"serves no release of {model}"
        lines.append((logging.INFO, text))
    return lines
