"""Candidates: the devices that may download, about twice as many as may start soon.

They are the devices of the open wave with the lowest positions. The limit is soft. It keeps a whole
wave from downloading a release that only a few of its devices may start. A candidate too many costs
only the bytes of its download.
"""

from typing import Final

import numpy as np

from edgefleet.rollout.fleet.cut import EVERYONE, Hashes

AHEAD: Final = 2.0  # candidates per device that may start
AT_LEAST: Final = 8  # candidates
WIDEN_S: Final = 60.0  # without a start for this long, the number of candidates doubles


class Candidates:
    """A threshold: devices of the open wave with a position below it are candidates."""

    def __init__(self) -> None:
        self.below = 0
        self._for = 0  # how many could start when the threshold was set
        self._made_at = 0.0
        self._begun = 0
        self._width = AHEAD

    def open(self, *, allowed: int, begun: int, cut: int, now: float) -> None:
        """Set a first threshold when a wave opens. Positions are spread evenly over the cut."""
        self._width = AHEAD
        self._note(allowed, begun, now)
        share = begun + self._wanted(allowed)
        self.below = EVERYONE if share >= cut else EVERYONE * share // cut

    def is_stale(self, *, allowed: int, begun: int, now: float) -> bool:
        """True if more devices may start than when it was set, or none started for WIDEN_S."""
        grown = allowed > 1.25 * self._for
        used = begun - self._begun >= max(1, self._for // 2)
        return grown or used or not 0 <= now - self._made_at < WIDEN_S

    def renew(self, waiting: Hashes, *, allowed: int, begun: int, now: float) -> None:
        """Set the threshold. ``waiting``: positions of online devices that have not begun."""
        idle = begun == self._begun and now - self._made_at >= WIDEN_S
        self._width = min(self._width * 2, float(1 << 32)) if idle else AHEAD
        self._note(allowed, begun, now)
        count = self._wanted(allowed)
        if count >= len(waiting):
            self.below = EVERYONE
        else:
            self.below = int(np.partition(waiting, count)[count])

    def pause(self, now: float) -> None:
        """Keep the number of candidates while no device may start: no start is expected then."""
        self._made_at = max(self._made_at, now)

    def _wanted(self, allowed: int) -> int:
        return max(AT_LEAST, int(self._width * allowed))

    def _note(self, allowed: int, begun: int, now: float) -> None:
        self._for, self._begun, self._made_at = allowed, begun, now
