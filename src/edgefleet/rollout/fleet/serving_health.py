"""The health of serving that devices reported with their last check-ins. Not persisted.

Only devices with something wrong have an entry, so a healthy fleet costs nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from edgefleet.protocol.serving_health import ServingHealth, ServingView, view_of
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.limits import SERVING_ENDS_FAILED


@dataclass(frozen=True, slots=True)
class ServingFigures:
    """Online devices by the health of their serving, and the ends of the last hour by cause."""

    down: int = 0
    unstable: int = 0  # up, but a process that serves ended in the last hour
    ends: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class ServingReports:
    """The last report of each device with something wrong, by row."""

    def __init__(self) -> None:
        self.by_row: dict[int, tuple[ServingHealth, float]] = {}  # with the time of receipt

    def note(self, row: int, health: ServingHealth | None, now: float) -> None:
        """Record what a check-in said of serving. None: nothing is wrong."""
        if health is not None:
            self.by_row[row] = (health, now)
        elif self.by_row:
            self.by_row.pop(row, None)

    def note_all(self, rows: Rows, health: ServingHealth | None, now: float) -> None:
        """``note`` for many devices."""
        if health is not None or self.by_row:
            for row in rows.tolist():
                self.note(row, health, now)

    def view(self, row: int) -> ServingView | None:
        """The last report of the device for people. None if nothing is wrong."""
        found = self.by_row.get(row)
        return None if found is None else view_of(*found)

    def rows(self, *, is_down: bool) -> Rows:
        """The devices that do not serve a confirmed release, or those that serve it again."""
        found = [
            row for row, (one, _) in self.by_row.items() if (one.down_s is not None) == is_down
        ]
        return np.array(sorted(found), np.int64)

    def failed_rows(self, model: str, down_s: float) -> Rows:
        """The devices on which serving ``model`` fails, ascending.

        It is down for longer than ``down_s``, or SERVING_ENDS_FAILED times in the last hour a
        process ended that served the release that runs now.
        """
        found = [row for row, (health, _) in self.by_row.items() if _fails(health, model, down_s)]
        return np.array(sorted(found), np.int64)

    def figures(self, is_online: Callable[[int], bool]) -> ServingFigures:
        """The counts over the devices for whose row ``is_online`` is true."""
        down = unstable = 0
        ends: dict[str, int] = {}
        for row, (health, _) in self.by_row.items():
            if not is_online(row):
                continue
            down += health.down_s is not None
            unstable += health.down_s is None
            for one in health.ends:
                ends[one.cause] = ends.get(one.cause, 0) + one.count
        return ServingFigures(down, unstable, dict(sorted(ends.items())))


def _fails(health: ServingHealth, model: str, down_s: float) -> bool:
    is_down = model in health.down and health.down_s is not None and health.down_s > down_s
    return is_down or health.by_model.get(model, 0) >= SERVING_ENDS_FAILED
