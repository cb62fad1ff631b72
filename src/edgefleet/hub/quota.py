"""Rate limits per device, so that one faulty device cannot fill the disk or a table."""

from collections import Counter
from typing import Final

from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError

_HOUR_S: Final = 3600.0


class Quota:
    """Counts what each device did in the current period. Idle devices use no memory.

    ``text`` names it in the error, after its number.
    """

    def __init__(
        self,
        most: int,
        clock: Clock,
        *,
        period_s: float = _HOUR_S,
        text: str = "reports this hour",
    ) -> None:
        self._most = most
        self._clock = clock
        self._period_s = period_s
        self._text = text
        self._since = clock.monotonic()
        self._written: Counter[int] = Counter()

    def check(self, row: int) -> None:
        """Raise DeviceError ``overloaded`` if the device has reached its limit for this period."""
        now = self._clock.monotonic()
        if now - self._since >= self._period_s:
            self._since = now
            self._written.clear()
        if self._written[row] >= self._most:
            raise DeviceError(
                "overloaded",
                f"The device has sent {self._written[row]} {self._text}, the limit.",
                hint=f"Send the others in {self._period_s / _HOUR_S:g} h.",
            )

    def count(self, row: int, written: int) -> None:
        """Count ``written`` more of a device."""
        self._written[row] += written
