"""The rollouts as curves over time, and their lines of progress."""

import time
from collections.abc import Callable

from edgefleet.protocol.rollout import RolloutView
from edgefleet.sim.virtual.environment import Environment
from edgefleet.sim.virtual.result import Point

POINTS = 400  # kept for each rollout; above it every second one is dropped
POINT_S = 60.0  # seconds between two points
PROGRESS_S = 300.0  # seconds between two lines of progress


class Curves:
    """``began`` is a time of ``time.perf_counter``. Each line has the seconds since then.

    ``points`` are by rollout, from the tick after it was planned.
    """

    def __init__(
        self, environment: Environment, began: float, progress: Callable[[str], None] | None
    ) -> None:
        self.points: dict[str, list[Point]] = {}
        self._environment = environment
        self._began = began
        self._progress = progress
        self._next_point = self._next_progress = environment.start

    def note(self) -> None:
        """Add a point to each curve, and log lines of progress if they are due.

        Does nothing between two points. A rollout that has ended is logged once all have.
        """
        environment = self._environment
        now, engine = environment.now, environment.hub.engine
        if now < self._next_point:
            return
        self._next_point = now + POINT_S
        planned = {state.id for state in engine.states()}
        rollouts = environment.scenario.rollouts.values()
        views = [engine.view(rollout, now) for rollout in rollouts if rollout in planned]
        points = [self._add(view, now) for view in views]
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_S
            is_over = all(view.ended_at is not None for view in views)
            for view, point in zip(views, points, strict=True):
                if view.ended_at is None or is_over:
                    self._log_progress(view, point)

    def log(self, text: str) -> None:
        if self._progress is not None:
            self._progress(f"{time.perf_counter() - self._began:6.1f} s  {text}")

    def _add(self, view: RolloutView, now: float) -> Point:
        evidence = view.evidence
        wave = view.waves[view.wave] if view.wave is not None else None
        point = Point(
            at_s=now - self._environment.start,
            wave=view.wave or 0,
            cut=(wave.cut if wave else None) or 0,
            exposed=view.exposed,
            in_trial=evidence.in_trial,
            healthy=evidence.healthy,
            failed=evidence.failed + evidence.refused,
        )
        points = self.points.setdefault(view.id, [])
        points.append(point)
        if len(points) > POINTS:
            del points[1:-1:2]
        return point

    def _log_progress(self, view: RolloutView, point: Point) -> None:
        model = f"{view.model} " if len(self._environment.scenario.rollouts) > 1 else ""
        self.log(
            f"minute {int(point.at_s) // 60}: {model}{view.status}, wave {point.wave + 1}, "
            f"{point.exposed} exposed, {point.in_trial} in trial, {point.healthy} healthy"
        )
