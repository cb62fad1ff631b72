"""``edgefleet agent status`` and ``health``: what the agent of this device answers, as text."""

import time
from pathlib import Path
from typing import Final

from edgefleet.agent.agent_status import AgentStatus
from edgefleet.agent.status_socket import ask_serving, ask_status
from edgefleet.base.texts import one_line
from edgefleet.protocol.wire import encode

HEALTHY: Final = 0
UNHEALTHY: Final = 1


def show(verb: str, data_dir: Path, *, as_json: bool) -> tuple[tuple[str, ...], int]:
    """The lines of an answer, and the exit code: 1 if no agent answers, or is not healthy.

    ``status`` succeeds whenever an agent answers.
    """
    status = ask_status(data_dir)
    if status is None:
        return (f"No agent answers for {data_dir.resolve()}. {ask_serving(data_dir)}",), UNHEALTHY
    code = UNHEALTHY if status.problems and verb == "health" else HEALTHY
    if as_json:
        return (encode(status).decode(),), code
    if verb == "status":
        return status_lines(status), code
    return health_lines(status), code


def health_lines(status: AgentStatus) -> tuple[str, ...]:
    """One line: healthy, or what is wrong and since when."""
    if not status.problems:
        return (f"healthy: {status.line}",)
    view = status.serving
    since = "" if view is None else f" (since {_time(view.since)})"
    return tuple(f"unhealthy: {text}{since}" for text in status.problems)


def status_lines(status: AgentStatus) -> tuple[str, ...]:
    """Names and values."""
    hub = "answers"
    if status.hub_lost_since is not None:
        what = "lost since" if status.hub_reached else "not reached since"
        hub = f"{what} {_time(status.hub_lost_since)}: {status.hub_lost_reason}"
    elif not status.hub_reached:
        hub = "not asked yet"
    rows = [
        ("device", status.device or "not enrolled"),
        ("hub", f"{status.hub}, {hub}" if status.device else status.hub),
        ("agent", f"edgefleet {status.version}"),
    ]
    for one in status.models:
        served = "serves" if one.is_served else "does not serve"
        if one.release is not None:
            rows.append((one.model, f"{served} release {one.release}"))
        if one.next is not None:
            rows.append((one.model, f"release {one.next} {one.doing}"))
    if status.serving is not None:
        rows.append(("serving", f"{status.serving.text} (since {_time(status.serving.since)})"))
    rows.append(("now", status.line))
    width = max(len(name) for name, _ in rows)
    return tuple(f"{name.ljust(width)}  {one_line(value)}" for name, value in rows)


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
