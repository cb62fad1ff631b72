"""The health of serving on a device, in the words of a table cell."""

from edgefleet.cli.values import duration
from edgefleet.protocol.serving_health import ServingView


def serving_cell(view: ServingView | None, now: float) -> str | None:
    """``down for 42s (7x SIGKILL)``. None if nothing is wrong."""
    if view is None:
        return None
    lasted = duration(max(0.0, now - view.since))
    if view.down_since is None:
        return f"up ({view.short}, last {lasted} ago)"
    return f"down for {lasted}" + (f" ({view.short})" if view.short else "")
