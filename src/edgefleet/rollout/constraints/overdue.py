"""Overdue devices: they began a release, should have checked in by now, and have not.

A device that a release bricks sends no report, and the gate counts it only after ``silence_s``.
Until then the exposure limit would keep growing, so the limit reacts to overdue devices sooner.
"""

from collections import deque

from edgefleet.protocol.rollout import GateSpec
from edgefleet.rollout.constraints import exposure
from edgefleet.rollout.limits import OVERDUE_SAMPLES


class Overdue:
    """The overdue devices of one rollout at the last ``update``. None before the first call.

    ``missing`` devices are in trial and have not checked in for ``within_s``. They are compared
    with ``due``, the devices that began at least that long ago: while a release spreads, most
    devices have only just begun, and would hide how many of the others are overdue. Start times are
    not persisted. After a restart, all devices that began before the restart are due.
    """

    def __init__(self) -> None:
        self.missing = 0
        self.due = 0
        self.suspect = False  # significantly more are missing than the plan allows
        self._began: deque[tuple[float, int]] = deque()  # (time, devices that had begun by then)

    def update(
        self, spec: GateSpec, *, missing: int, began: int, now: float, within_s: float
    ) -> None:
        """Update the counts: ``began`` devices have begun, and ``missing`` of these are overdue."""
        last = self._began[-1] if self._began else None
        if last is None or (began != last[1] and now - last[0] >= within_s / OVERDUE_SAMPLES):
            self._began.append((now, began))
        while len(self._began) > 1 and self._began[1][0] <= now - within_s:
            self._began.popleft()
        self.missing = missing
        self.due = max(missing, self._began[0][1])
        self.suspect = exposure.missed(spec, missing=missing, due=self.due)

    @property
    def samples(self) -> int:
        """The number of kept samples of how many devices had begun. It is bounded."""
        return len(self._began)

    @property
    def reason(self) -> str:
        """The reason why the limit of devices in trial does not grow, as the end of a sentence."""
        return (
            f"the limit does not grow while {self.missing} of {self.due} devices are overdue "
            "(they began and have not checked in since)"
        )
