"""Devices of a rollout whose failures do not count, as their site went dark while they began.

To leave them out takes failures away and adds none, so it raises no false-alarm rate.
"""

from typing import Final

import numpy as np

from edgefleet.protocol.rollout import GateSpec, Outage, Part
from edgefleet.rollout.evidence.late import Late
from edgefleet.rollout.evidence.ledger import AT_FAULT, DeviceStanding, Ledger
from edgefleet.rollout.evidence.taken_parts import FindValues, TakenParts
from edgefleet.rollout.fleet.columns import Mask, Rows

_NOBODY: Final[Rows] = np.zeros(0, np.int64)
_FAILED: Final = frozenset({DeviceStanding.FAILED})


class SetAside:
    """The outages of one rollout. A function of the state, the ledger and the fleet's facts.

    ``disturbed`` are the devices in an outage. ``parts`` are these, and those of the parts from
    which the release was taken back, which no test counts either.
    """

    def __init__(self, ledger: Ledger, find_values: FindValues) -> None:
        self._ledger = ledger
        self._find_values = find_values
        self.disturbed = self._taken = self.parts = self._parts_of(())
        self._failed = (-1, _NOBODY)  # version of the ledger, its ``failed``

    def arrange(self, taken: TakenParts[Part], outages: tuple[Outage, ...]) -> None:
        """Set the parts that gave the release back, and the outages of sites."""
        if outages != self.disturbed.parts:
            self.disturbed = self._parts_of(outages)
        if taken is not self._taken or (*taken.parts, *outages) != self.parts.parts:
            self._taken = taken
            self.parts = self._parts_of((*taken.parts, *outages)) if outages else taken
            self._failed = (-1, self._failed[1])

    @property
    def failed(self) -> Rows:
        """Ascending rows of the devices that failed in an outage, without parts taken back."""
        if not self.disturbed:
            return _NOBODY
        if self._failed[0] != self._ledger.version:
            rows = self._ledger.rows(DeviceStanding.FAILED)
            found = self.disturbed.all_have(rows) & ~self._taken.all_have(rows)
            self._failed = (self._ledger.version, rows[found])
        return self._failed[1]

    def at_fault(self, rows: Rows) -> Mask:
        """For each of the ascending ``rows``: the release failed on it or it refused the release.

        A failure in an outage of the site is the fault of neither release nor device.
        """
        return self._ledger.have(rows, AT_FAULT) & ~self.excused(rows)

    def excused(self, rows: Rows) -> Mask:
        """True for each of the ascending ``rows`` that failed in an outage of its site."""
        if not self.disturbed:
            return np.zeros(len(rows), np.bool_)
        return self._ledger.have(rows, _FAILED) & self.disturbed.all_have(rows)

    def is_excused(self, row: int) -> bool:
        """``excused`` for one device."""
        failed = bool(self.disturbed) and self._ledger.standing(row) in _FAILED
        return failed and self.disturbed.has(row)

    def late_without(self, spec: GateSpec, part: Part) -> Late:
        """The detector of late failures, with one more part set aside."""
        late = Late(self._ledger)
        late.arrange(spec, self._parts_of((*self.parts.parts, part)))
        return late

    def _parts_of(self, parts: tuple[Part, ...]) -> TakenParts[Part]:
        return TakenParts(parts, self._ledger, self._find_values)
