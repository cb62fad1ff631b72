"""The rollout as a curve over time, and the lines of progress that tell of it."""

import time
from collections.abc import Callable

from edgefleet.sim.virtual.environment import Outside
from edgefleet.sim.virtual.result import Point
from edgefleet.sim.virtual.scenario import ROLLOUT

POINTS = 400  # kept; every other one goes when there are more
POINT_S = 60.0  # between two of them
WORD_S = 300.0  # between two lines of progress


class Curve:
    """Lines of progress count from ``began``, a moment of ``time.perf_counter``."""

    def __init__(
        self, outside: Outside, began: float, progress: Callable[[str], None] | None
    ) -> None:
        self.points: list[Point] = []
        self._outside = outside
        self._began = began
        self._progress = progress
        self._next_point = self._next_word = outside.start

    def note(self) -> None:
        """Look at the rollout, if it is time for a point."""
        outside = self._outside
        now, start = outside.now, outside.start
        if now < self._next_point:
            return
        view = outside.hub.engine.view(ROLLOUT, now)
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
        if now >= self._next_word:
            self._next_word = now + WORD_S
            minutes = int(now - start) // 60
            self.say(
                f"minute {minutes}: {view.status}, wave {point.wave + 1}, {point.exposed} exposed, "
                f"{point.in_trial} in trial, {point.healthy} healthy"
            )

    def say(self, text: str) -> None:
        if self._progress is not None:
            self._progress(f"{time.perf_counter() - self._began:6.1f} s  {text}")
