"""The rollout as a curve over time, and its lines of progress."""

import time
from collections.abc import Callable

from edgefleet.sim.virtual.environment import Environment
from edgefleet.sim.virtual.result import Point
from edgefleet.sim.virtual.scenario import ROLLOUT

POINTS = 400  # kept; above it every second one is dropped
POINT_S = 60.0  # seconds between two points
PROGRESS_S = 300.0  # seconds between two lines of progress


class Curve:
    """``began`` is a time of ``time.perf_counter``. Each line has the seconds since then."""

    def __init__(
        self, environment: Environment, began: float, progress: Callable[[str], None] | None
    ) -> None:
        self.points: list[Point] = []
        self._environment = environment
        self._began = began
        self._progress = progress
        self._next_point = self._next_progress = environment.start

    def note(self) -> None:
        """Add a point and, if due, log a line of progress. Does nothing between two points."""
        environment = self._environment
        now, start = environment.now, environment.start
        if now < self._next_point:
            return
        view = environment.hub.engine.view(ROLLOUT, now)
        evidence = view.evidence
        wave = view.waves[view.wave] if view.wave is not None else None
        point = Point(
            at_s=now - start,
            wave=view.wave or 0,
            cut=(wave.cut if wave else None) or 0,
            exposed=view.exposed,
            in_trial=evidence.in_trial,
            healthy=evidence.healthy,
            failed=evidence.failed + evidence.refused,
        )
        self.points.append(point)
        if len(self.points) > POINTS:
            del self.points[1:-1:2]
        self._next_point = now + POINT_S
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_S
            minutes = int(now - start) // 60
            self.log(
                f"minute {minutes}: {view.status}, wave {point.wave + 1}, {point.exposed} exposed, "
                f"{point.in_trial} in trial, {point.healthy} healthy"
            )

    def log(self, text: str) -> None:
        if self._progress is not None:
            self._progress(f"{time.perf_counter() - self._began:6.1f} s  {text}")
