"""Numbers of check-ins that a device skipped: its check-in may be on the way still.

A check-in that waited, in the network or at the hub, may arrive after the next one of its device.
Its number is below the last one, and was not used. A replayed number was used.
"""

from typing import Final

_DEVICES: Final = 100_000  # with skipped numbers, about 200 bytes each
_NUMBERS: Final = 8  # skipped ones of a device, the last


class MissedNumbers:
    """The last numbers that devices skipped. Not stored: after a restart there are none."""

    def __init__(self) -> None:
        self._by_row: dict[int, tuple[int, ...]] = {}

    def note(self, row: int, last: int, seq: int) -> None:
        """The device used ``seq`` after ``last``."""
        skipped = (*self._by_row.pop(row, ()), *range(max(last + 1, seq - _NUMBERS), seq))
        if len(self._by_row) >= _DEVICES:
            del self._by_row[next(iter(self._by_row))]
        self._by_row[row] = skipped[-_NUMBERS:]

    def consume(self, row: int, seq: int) -> bool:
        """True if the device skipped ``seq``. It counts as used from now on."""
        skipped = self._by_row.get(row, ())
        if seq not in skipped:
            return False
        self._by_row[row] = tuple(number for number in skipped if number != seq)
        return True

    def forget(self, row: int) -> None:
        """The device was removed."""
        self._by_row.pop(row, None)
