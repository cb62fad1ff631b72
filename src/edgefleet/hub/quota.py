"""How much one device may make the hub keep: a disk is not for the first device that goes mad."""

from collections import Counter
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError

_HOUR_S: Final = 3600.0


class Quota:
    """What each device has written in the hour that runs; only those that wrote take memory."""

    def __init__(self, per_hour: int, clock: Clock) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._since = clock.monotonic()
        self._written: Counter[int] = Counter()

    def check(self, row: int) -> None:
        """Raise DeviceError ``overloaded`` when the device has written its share."""
        now = self._clock.monotonic()
        if now - self._since >= _HOUR_S:
            self._since = now
            self._written.clear()
        if self._written[row] >= self._per_hour:
            raise DeviceError(
                "overloaded",
                f"The device reported {self._per_hour} things within an hour.",
                hint="Report the rest in an hour.",
            )

    def count(self, row: int, written: int) -> None:
        """These came on top."""
        self._written[row] += written
