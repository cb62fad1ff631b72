"""Windows of time in which a release serves, and the differences between two of them.

A quality window is as long as a hundred requests; memory, heat and battery need minutes. So they
have windows of their own. The first minutes after a switch are left out, and so is a window in
which another model is switched: it would show the cost of the other model.
"""

from edgefleet.agent import cost_figures, limits
from edgefleet.agent.cost_figures import Board, CostFigures, CostWindow, CostWindows
from edgefleet.agent.quality_window import to_report
from edgefleet.agent.typed_replace import replace
from edgefleet.protocol.device import Scores
from edgefleet.protocol.serving import ModelStatus


def advance(
    windows: CostWindows, status: ModelStatus, pid: int, board: Board | None, now: float
) -> CostWindows:
    """Add a reading. ``pid`` is the shared process, and ``board`` the last reading of sensors."""
    filling, stats = windows.filling, status.stats
    process = pid if status.worker is None else status.worker
    if filling is None or (filling.release, filling.process) != (status.release, process):
        begins = now + limits.COST_WARM_UP_S
        window = CostWindow(release=status.release, process=process, since=begins)
        return replace(windows, filling=window)
    if now < filling.since or (filling.board and now - filling.board[-1][0] < limits.COST_SAMPLE_S):
        return windows
    filling = replace(
        filling,
        first=stats.requests if filling.first is None else filling.first,
        memory=cost_figures.follow(filling.memory, now, stats.process_kib),
        board=(*filling.board, (now, board or Board())),
    )
    if now - filling.since < limits.COST_WINDOW_S:
        return replace(windows, filling=filling)
    ended = _figures(filling, stats.requests)
    scores = None if windows.full is None else compare(windows.full, ended)
    return CostWindows(
        filling=CostWindow(release=status.release, process=process, since=now),
        full=ended,
        scores=to_report(windows.scores, scores),
    )


def restart(windows: CostWindows) -> CostWindows:
    """Another model on the device was switched: no comparison spans it."""
    return CostWindows(scores=windows.scores)


def growth_mib_h(windows: CostWindows, release: str) -> float:
    """The growth of memory in the last full window of ``release``. 0 if it is not known."""
    full = windows.full
    return full.memory_mib_h or 0.0 if full is not None and full.release == release else 0.0


def compare(before: CostFigures, after: CostFigures) -> Scores:
    """The differences between the window ``after`` and the window ``before``."""
    return Scores(
        from_release=before.release,
        to_release=after.release,
        requests=min(before.requests, after.requests),
        memory_growth_delta=_delta(before.memory_mib_h, after.memory_mib_h, 1e6),
        temperature_delta=_delta(before.temperature_c, after.temperature_c, 1e3),
        throttled_delta=_delta(before.throttled, after.throttled, 1.0),
        battery_drain_delta=_delta(before.battery_percent_h, after.battery_percent_h, 1e6),
    )


def _figures(window: CostWindow, requests: int) -> CostFigures:
    readings = [reading for _, reading in window.board]
    heat = [one.temperature_c for one in readings if one.temperature_c is not None]
    slow = [one.is_throttled for one in readings if one.is_throttled is not None]
    return CostFigures(
        release=window.release,
        requests=max(0, requests - (window.first or 0)),
        memory_mib_h=cost_figures.growth_mib_h(window.memory.samples),
        temperature_c=sum(heat) / len(heat) if heat else None,
        throttled=sum(slow) / len(slow) if slow else None,
        battery_percent_h=_drain(window),
    )


def _drain(window: CostWindow) -> float | None:
    """The fall of the battery in percent an hour. None unless it discharged all the time."""
    (began, first), (ended, last) = window.board[0], window.board[-1]
    if any(one.battery_percent is None for _, one in window.board) or ended <= began:
        return None
    if first.battery_percent is None or last.battery_percent is None:
        return None
    return (first.battery_percent - last.battery_percent) * 3600 / (ended - began)


def _delta(before: float | None, after: float | None, most: float) -> float | None:
    if before is None or after is None:
        return None
    return max(-most, min(most, after - before))
