"""The attempts of a device as text."""

from edgefleet.base.texts import utc_text
from edgefleet.cli.screen import table
from edgefleet.cli.values import duration
from edgefleet.protocol.operator import DeviceAttempt, DeviceHistory


def history_lines(history: DeviceHistory) -> list[str]:
    """One line for each attempt, newest first."""
    if not history.attempts:
        return [f"{history.device} has not tried a release."]
    head = ("at", "release", "end", "trial", "rollout", "cause")
    rows = [
        (
            utc_text(one.at),
            f"{one.model} {one.release}".strip(),
            one.kind.replace("_", " "),
            None if one.duration_s is None else duration(one.duration_s),
            one.rollout,
            cause_text(one),
        )
        for one in history.attempts
    ]
    lines = table(head, rows)
    return [*lines, "Earlier attempts are not shown."] if history.is_cut else lines


def cause_text(attempt: DeviceAttempt) -> str | None:
    """``confidence dropped: Mean confidence fell from 0.960 to 0.400 ...``. None without one."""
    return ": ".join(filter(None, (attempt.cause, attempt.detail))) or None
