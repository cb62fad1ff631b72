"""Devices of a rollout whose failures do not count.

The site of the device went dark while it was in trial, or the release was taken back from the part
that contains it. To leave such devices out takes failures away and adds none.
"""

from typing import Final

import numpy as np

from edgefleet.protocol.rollout import GateSpec, Outage, Part, TakenBack
from edgefleet.rollout.evidence.late import Late
from edgefleet.rollout.evidence.ledger import AT_FAULT, DeviceStanding, Ledger
from edgefleet.rollout.evidence.taken_parts import FindLabelled, TakenParts
from edgefleet.rollout.fleet.columns import Mask, Rows

_FAILED: Final = frozenset({DeviceStanding.FAILED})


class SetAside:
    """The parts set aside. A function of the state, the ledger and the facts of the fleet."""

    def __init__(self, ledger: Ledger, find_labelled: FindLabelled) -> None:
        self._ledger = ledger
        self._find_labelled = find_labelled
        self.taken = self.disturbed = self.parts = self._parts_of(())
        self._failed = (-1, 0)  # version of the ledger, failed devices that are set aside

    def arrange(self, taken_back: tuple[TakenBack, ...], outages: tuple[Outage, ...]) -> None:
        """Set the parts: those that gave the release back, and the outages of sites."""
        if taken_back != self.taken.parts:
            self.taken = self._parts_of(taken_back)
        if outages != self.disturbed.parts:
            self.disturbed = self._parts_of(outages)
        if (*taken_back, *outages) != self.parts.parts:
            self.parts = self._parts_of((*taken_back, *outages))
            self._failed = (-1, 0)

    def of(self, rows: Rows) -> Mask:
        """True for each of the ascending ``rows`` that is set aside."""
        return self.parts.all_have(rows)

    @property
    def rows(self) -> Rows:
        """Ascending rows of the devices that began and are set aside."""
        if not self.parts:
            return np.zeros(0, np.int64)
        begun = self._ledger.begun_rows
        return begun[self.of(begun)]

    @property
    def failed(self) -> int:
        """Number of failed devices that are set aside."""
        if not self.parts:
            return 0
        if self._failed[0] != self._ledger.version:
            found = self.of(self._ledger.rows(DeviceStanding.FAILED))
            self._failed = (self._ledger.version, int(np.count_nonzero(found)))
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

    def _parts_of(self, parts: tuple[Part, ...]) -> TakenParts:
        return TakenParts(parts, self._ledger, self._find_labelled)
