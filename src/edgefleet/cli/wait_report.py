"""A WaitReport as text: the output of every ``why``."""

from edgefleet.cli.values import duration
from edgefleet.protocol.why import Wait, WaitReport


def wait_lines(report: WaitReport) -> list[str]:
    """The summary line, then one row for each wait."""
    lines = [report.line]
    for wait in report.waits:
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
        f"{wait.devices} devices" if wait.devices is not None else "",
    ]
    joined = ", ".join(filter(None, parts))
    return f" ({joined})" if joined else ""
