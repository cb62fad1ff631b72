"""The versions of the devices' agents as a column, two bytes for each device."""

from array import array

import numpy as np

from edgefleet.hub.limits import AGENT_VERSIONS
from edgefleet.rollout.fleet.columns import Mask

_OTHER = 0  # a version above the limit


class AgentVersions:
    """At most ``AGENT_VERSIONS`` versions are told apart: devices name them.

    A version that no row has any more makes room for another one.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._by_row = array("H")
        self._uses = array("L", [0])  # rows with each number
        self._names: dict[int, str] = {}  # by number
        self._free: list[int] = []

    def set(self, row: int, version: str) -> None:
        """Note the version of a device; ``row`` is a known one, or the next."""
        if row == len(self._by_row):
            self._by_row.append(_OTHER)
        elif self._numbers.get(version) == self._by_row[row]:
            return
        else:
            self._drop(self._by_row[row])
        number = self._numbers.get(version)
        if number is None:
            number = _OTHER
            if self._free or len(self._uses) <= AGENT_VERSIONS:
                number = self._numbers[version] = self._new_number()
                self._names[number] = version
        self._by_row[row] = number
        self._uses[number] += 1

    def _new_number(self) -> int:
        if self._free:
            return self._free.pop()
        self._uses.append(0)
        return len(self._uses) - 1

    def _drop(self, number: int) -> None:
        """A row has the version with this number no more."""
        self._uses[number] -= 1
        if number != _OTHER and not self._uses[number]:
            del self._numbers[self._names[number]]
            self._free.append(number)

    def rows_with(self, version: str) -> Mask:
        """One truth value per row. A version above the limit selects no device."""
        column = np.frombuffer(self._by_row, np.uint16)
        found: Mask = column == self._numbers.get(version, 0xFFFF)
        return found
