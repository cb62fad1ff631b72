"""The cause of a failed gate as a sentence, from the reports of the devices that failed.

A device measures what fell, from which value to which value, and the limit. Its own sentence
says so, and the cause repeats this sentence with the name of the device.
"""

from edgefleet.base.texts import counted
from edgefleet.protocol.metric_kinds import ChangeMetric
from edgefleet.protocol.reasons import reason_text
from edgefleet.protocol.rollout import Evidence


def cause_of_failures(evidence: Evidence) -> str:
    """The most frequent cause as a sentence, with a space behind it. Empty without reports.

    ``wine-1: Mean confidence fell from 0.960 to 0.400 over 50 scores (limit 0.860).`` for one
    device; for more: ``Confidence dropped on 11 devices. On wine-1: Mean confidence fell ...``.
    """
    if not evidence.reasons:
        return ""
    code, count = max(evidence.reasons.items(), key=lambda item: item[1])
    if not code:
        return ""
    name = evidence.examples.get(code, "")
    words = evidence.details.get(code, "").strip()
    words = f"{words.rstrip('.')}." if words else ""
    if count == 1 and name and words:
        return f"{name}: {words} "
    what = reason_text(code)
    where = name if count == 1 and name else counted(count, "device")
    found = f"{what[0].upper()}{what[1:]} on {where}"
    if count > 1 and name and words:
        return f"{found}. On {name}: {words} "
    if count > 1 and name:
        return f"{found}, such as {name}. "
    return f"{found}: {words} " if words else f"{found}. "


def figures_of_sides(metric: ChangeMetric, evidence: Evidence) -> str:
    """``" Canary: 0.712, control: 0.941."`` Empty if the cohorts have no such figure."""
    figure = metric.figure
    if figure is None:
        return ""
    canary, control = figure.read(evidence.canary), figure.read(evidence.control)
    if canary is None or control is None:
        return ""
    return f" Canary: {figure.unit.text(canary)}, control: {figure.unit.text(control)}."
