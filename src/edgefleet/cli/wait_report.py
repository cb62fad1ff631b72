"""A WaitReport as text: the output of every ``why``."""

from edgefleet.base.texts import counted
from edgefleet.cli.values import duration
from edgefleet.protocol.why import Wait, WaitReport


def wait_lines(report: WaitReport) -> list[str]:
    """The summary line, then one row for each wait. Waits of several models are grouped."""
    lines = [report.line]
    by_model = len({wait.model for wait in report.waits if wait.model}) > 1
    model: str | None = None
    for wait in report.waits:
        if by_model and wait.model != model:
            model = wait.model
            lines.append(f"{model}")
        lines.append(f"  {wait.code.value}: {wait.text}{_times(wait, report.at)}")
        if wait.first:
            more = (wait.devices or 0) - len(wait.first)
            lines.append(f"    {', '.join(wait.first)}" + (f" and {more} more" if more > 0 else ""))
    return lines


def _times(wait: Wait, now: float) -> str:
    parts = [
        f"since {duration(now - wait.since)}" if wait.since is not None else "",
        f"ends in {duration(wait.until - now)}"
        if wait.until is not None and wait.until > now
        else "",
        counted(wait.devices, "device") if wait.devices is not None else "",
    ]
    joined = ", ".join(filter(None, parts))
    return f" ({joined})" if joined else ""
