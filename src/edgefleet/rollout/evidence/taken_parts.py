"""The devices in any of several parts, such as those from which a rollout took its release back.

A part is named by a time (the devices that began between two times), by a label (the devices with
a value of a label or with a profile), or by both.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from edgefleet.protocol.rollout import Part
from edgefleet.rollout.evidence.ledger import Ledger
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.label_values import LabelValues

FindValues = Callable[[str, Sequence[str]], LabelValues]
"""Returns the devices with one of these values of a label."""


_Part_co = TypeVar("_Part_co", bound=Part, covariant=True)


class TakenParts(Generic[_Part_co]):
    """Parts of one rollout. A function of its state, its ledger and the facts of the fleet."""

    def __init__(
        self, parts: tuple[_Part_co, ...], ledger: Ledger, find_values: FindValues
    ) -> None:
        self.parts = parts
        self._ledger = ledger
        self._labelled = tuple(
            find_values(part.key, (part.value,)) if part.key else None for part in parts
        )

    def __bool__(self) -> bool:
        return bool(self.parts)

    def has(self, row: int) -> bool:
        """True if the device is in one of the parts."""
        return self.part_of(row) is not None

    def part_of(self, row: int) -> _Part_co | None:
        """The first of the parts that contains the device. None if none does."""
        for part, labelled in zip(self.parts, self._labelled, strict=True):
            if (labelled is None or labelled.has(row)) and self._began_in(row, part):
                return part
        return None

    def all_have(self, rows: Rows) -> Mask:
        """``has`` for each of ``rows``, which must ascend."""
        found: Mask = np.zeros(len(rows), np.bool_)
        for part, labelled in zip(self.parts, self._labelled, strict=True):
            mask = np.ones(len(rows), np.bool_) if labelled is None else labelled.all_have(rows)
            if part.since is not None or part.until is not None:
                mask &= self._ledger.began_between(rows, part.since, part.until)
            found |= mask
        return found

    def _began_in(self, row: int, part: Part) -> bool:
        if part.since is None and part.until is None:
            return True
        return self._ledger.activations.is_between(row, part.since, part.until)
