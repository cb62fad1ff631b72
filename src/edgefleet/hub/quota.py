"""Rate limit on durable writes per device, so that one faulty device cannot fill the disk."""

from collections import Counter
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError

_HOUR_S: Final = 3600.0


class Quota:
    """Counts the writes of each device in the current hour. Idle devices use no memory."""

    def __init__(self, per_hour: int, clock: Clock) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._since = clock.monotonic()
        self._written: Counter[int] = Counter()

    def check(self, row: int) -> None:
        """Raise DeviceError ``overloaded`` if the device has reached its limit for this hour."""
        now = self._clock.monotonic()
        if now - self._since >= _HOUR_S:
            self._since = now
            self._written.clear()
        if self._written[row] >= self._per_hour:
            raise DeviceError(
                "overloaded",
                f"The device has sent {self._written[row]} reports this hour, the limit.",
                hint="Send the other reports in an hour.",
            )

    def count(self, row: int, written: int) -> None:
        """Count ``written`` more writes of a device."""
        self._written[row] += written
