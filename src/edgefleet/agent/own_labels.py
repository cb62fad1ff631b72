"""The labels that a device reports: a line for each that has no effect, with the reason."""

import logging

from edgefleet.agent.event import CheckInAnswered
from edgefleet.agent.state import AgentState


def narrate_labels(before: AgentState, event: CheckInAnswered) -> list[tuple[int, str]]:
    """The log lines for the answer to a check-in that reported labels, as (level, text)."""
    sent = before.soft.sent
    if sent is None or sent.seq != event.seq or sent.facts is None or not sent.facts.labels:
        return []
    counted = event.answer.labels
    if counted is None:
        text = "labels have no effect after enrolment: this hub is older than the agent"
        return [(logging.WARNING, text)]
    lines: list[tuple[int, str]] = []
    for key, value in sent.facts.labels:
        known = counted.get(key)
        if known == value:
            continue
        why = (
            "the hub did not take it"
            if known is None
            else f"the operator set {key}={known}; `edgefleet device label NAME {key}-` ends that"
        )
        lines.append((logging.WARNING, f"label {key}={value} has no effect: {why}"))
    return lines
