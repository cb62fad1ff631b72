"""The versions of the devices' agents as a column, two bytes for each device."""

from array import array
from typing import Final

import numpy as np

from edgefleet.hub.limits import AGENT_VERSIONS
from edgefleet.hub.shared_values import SharedValues
from edgefleet.rollout.fleet.columns import Mask

_OTHER: Final = 0  # a version above the limit, or none; other entries are numbers plus one
_NOBODY: Final = 0xFFFF


class AgentVersions:
    """At most ``AGENT_VERSIONS`` versions are told apart, as devices choose them.

    A version that no row has any more makes room for another one.
    """

    def __init__(self) -> None:
        self._versions = SharedValues[str]()
        self._by_row = array("H")

    def set(self, row: int, version: str) -> None:
        """Note the version of a device; ``row`` is a known one, or the next."""
        if row == len(self._by_row):
            self._by_row.append(_OTHER)
        self.forget(row)  # first: its place is then free
        versions = self._versions
        if versions.number(version) is not None or len(versions) < AGENT_VERSIONS:
            self._by_row[row] = versions.use(version) + 1

    def forget(self, row: int) -> None:
        """The device of the row was removed, or has another version."""
        if self._by_row[row] != _OTHER:
            self._versions.drop(self._by_row[row] - 1)
            self._by_row[row] = _OTHER

    def rows_with(self, version: str) -> Mask:
        """One truth value per row. A version above the limit selects no device."""
        number = self._versions.number(version)
        column = np.frombuffer(self._by_row, np.uint16)
        found: Mask = column == (_NOBODY if number is None else number + 1)
        return found
