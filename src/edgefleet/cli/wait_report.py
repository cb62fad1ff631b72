"""How a WaitReport reads: the one answer to "why?" of every noun."""

from edgefleet.cli.values import duration
from edgefleet.protocol.why import Wait, WaitReport


def wait_lines(report: WaitReport) -> list[str]:
    """The line, then one row for each thing that is waited for."""
    lines = [report.line]
    for wait in report.waits:
        lines.append(f"  {wait.code.value}: {wait.text}{_times(wait, report.at)}")
        if wait.first:
            more = (wait.devices or 0) - len(wait.first)
            lines.append(f"    {', '.join(wait.first)}" + (f" and {more} more" if more > 0 else ""))
    return lines


def _times(wait: Wait, now: float) -> str:
    said = [
        f"since {duration(now - wait.since)}" if wait.since is not None else "",
        f"ends in {duration(wait.until - now)}"
        if wait.until is not None and wait.until > now
        else "",
        f"{wait.devices} devices" if wait.devices is not None else "",
    ]
    told = ", ".join(filter(None, said))
    return f" ({told})" if told else ""
