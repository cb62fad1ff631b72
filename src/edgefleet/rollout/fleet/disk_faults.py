"""The devices whose last write failed, as they reported it with their facts.

Only these devices have an entry, so a sound fleet costs nothing.
"""

import numpy as np

from edgefleet.protocol.disk_fault import known_code
from edgefleet.rollout.fleet.columns import Rows


class DiskFaults:
    """The code of the fault of each such device, by row. See ``Facts.disk_fault``."""

    def __init__(self) -> None:
        self._by_row: dict[int, str] = {}

    def set(self, row: int, code: str) -> None:
        """Record what the device reported last. Empty: it can write."""
        if code:
            self._by_row[row] = code
        else:
            self._by_row.pop(row, None)

    def get(self, row: int) -> str:
        """The code of the device's fault. Empty if it can write."""
        return self._by_row.get(row, "")

    def rows(self) -> Rows:
        """The devices with a fault, ascending."""
        return np.array(sorted(self._by_row), np.int64)

    def counts(self) -> dict[str, int]:
        """The number of devices by code, sorted. Codes of newer agents count as "other"."""
        found: dict[str, int] = {}
        for code in map(known_code, self._by_row.values()):
            found[code] = found.get(code, 0) + 1
        return dict(sorted(found.items()))
