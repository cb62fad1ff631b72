"""The versions of the devices' agents as a column, two bytes for each device."""

from array import array

import numpy as np

from edgefleet.hub.limits import AGENT_VERSIONS
from edgefleet.rollout.fleet.columns import Mask

_OTHER = 0  # a version above the limit


class AgentVersions:
    """At most ``AGENT_VERSIONS`` versions are told apart: devices name them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._by_row = array("H")

    def set(self, row: int, version: str) -> None:
        """Note the version of a device; ``row`` is a known one, or the next."""
        number = self._numbers.get(version)
        if number is None:
            number = _OTHER
            if len(self._numbers) < AGENT_VERSIONS:
                number = self._numbers[version] = len(self._numbers) + 1
        if row == len(self._by_row):
            self._by_row.append(number)
        else:
            self._by_row[row] = number

    def rows_with(self, version: str) -> Mask:
        """One truth value per row. A version above the limit selects no device."""
        column = np.frombuffer(self._by_row, np.uint16)
        found: Mask = column == self._numbers.get(version, 0xFFFF)
        return found
