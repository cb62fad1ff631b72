"""Who is offered a release that is being rolled out: about twice as many as may start soon.

Devices with the lowest positions come first. The bound is soft: it keeps a whole wave from fetching
what only a few of it may activate, and who is offered in vain costs nothing but the bytes.
"""

from typing import Final

import numpy as np

from edgefleet.rollout.fleet.cut import EVERYONE, Hashes

AHEAD: Final = 2.0  # times what may start
AT_LEAST: Final = 8
WIDEN_S: Final = 60.0  # nobody started for so long: ask more of them


class Candidates:
    """A position; devices of the open wave below it are offered the release."""

    def __init__(self) -> None:
        self.below = 0
        self._for = 0  # how many may start, as it was made
        self._made_at = 0.0
        self._begun = 0
        self._width = AHEAD

    def open(self, *, allowed: int, begun: int, cut: int, now: float) -> None:
        """A wave opened: a first guess, as positions lie evenly."""
        self._width = AHEAD
        self._note(allowed, begun, now)
        share = begun + self._wanted(allowed)
        self.below = EVERYONE if share >= cut else EVERYONE * share // cut

    def is_stale(self, *, allowed: int, begun: int, now: float) -> bool:
        """True when more may start than it was made for, or nobody did for long."""
        grown = allowed > 1.25 * self._for
        used = begun - self._begun >= max(1, self._for // 2)
        return grown or used or not 0 <= now - self._made_at < WIDEN_S

    def renew(self, waiting: Hashes, *, allowed: int, begun: int, now: float) -> None:
        """``waiting`` are the positions of who is online and has not begun."""
        idle = begun == self._begun and now - self._made_at >= WIDEN_S
        self._width = min(self._width * 2, float(1 << 32)) if idle else AHEAD
        self._note(allowed, begun, now)
        count = self._wanted(allowed)
        if count >= len(waiting):
            self.below = EVERYONE
        else:
            self.below = int(np.partition(waiting, count)[count])

    def hold(self, now: float) -> None:
        """Nobody who waits may start now: that nobody does is no reason to ask more of them."""
        self._made_at = max(self._made_at, now)

    def _wanted(self, allowed: int) -> int:
        return max(AT_LEAST, int(self._width * allowed))

    def _note(self, allowed: int, begun: int, now: float) -> None:
        self._for, self._begun, self._made_at = allowed, begun, now
