"""Who began, should have been heard by now, and was not.

A device that a release bricks says nothing, and the gate counts it only after ``silence_s``. Until
then growth would go on as if it were well, so it is missed sooner where growth is decided.
"""

from collections import deque

from edgefleet.protocol.rollout import GateSpec
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.limits import MUSTER_NOTES


class Overdue:
    """The roll call of one rollout, as of its last one; nothing is missing before the first.

    ``missing`` devices are in trial and were not heard for ``within_s``. They are held against
    ``due``, those that began so long ago: while a release spreads most devices have only just
    begun, and would hide how many of the others are gone. A process that starts anew knows no
    times of beginning and does not need them: all that began before it should be heard first.
    """

    def __init__(self) -> None:
        self.missing = 0
        self.due = 0
        self.suspect = False  # more are missing than the plan allows
        self._began: deque[tuple[float, int]] = deque()  # when, and how many by then

    def call(
        self, spec: GateSpec, *, missing: int, began: int, now: float, within_s: float
    ) -> None:
        """``began`` devices did by now, and ``missing`` of them are not heard."""
        last = self._began[-1] if self._began else None
        if last is None or (began != last[1] and now - last[0] >= within_s / MUSTER_NOTES):
            self._began.append((now, began))
        while len(self._began) > 1 and self._began[1][0] <= now - within_s:
            self._began.popleft()
        self.missing = missing
        self.due = max(missing, self._began[0][1])
        self.suspect = exposure.missed(spec, missing=missing, due=self.due)

    @property
    def reason(self) -> str:
        """Why no more may be in trial, as the end of a sentence."""
        if not self.suspect:
            return exposure.SO_FAR
        return (
            f"no more are added while {self.missing} of the {self.due} that should have been heard "
            "by now are missing"
        )
