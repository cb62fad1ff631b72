"""The values of one label, or the profiles (hardware classes), that devices have now."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.rollout import PROFILE
from edgefleet.rollout.fleet.answers import Answers
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet


class LabelValues:
    """Numbers the ``values`` of the label ``key`` from 1. The key ``profile`` is the profile.

    At most 255 values. The number of a device with none of them is 0.
    """

    def __init__(self, fleet: Fleet, key: str, values: Sequence[str]) -> None:
        numbers = {value: number for number, value in enumerate(values, 1)}
        self._fleet = fleet
        self._is_profile = key == PROFILE
        if self._is_profile:
            self._answers = Answers(
                lambda kit: numbers.get(fleet.kit(kit).profile, 0), lambda: fleet.kit_count
            )
        else:
            self._answers = Answers(
                lambda labels: (
                    numbers.get(fleet.label_set(labels).get(key, ""), 0)
                    if key in fleet.label_set(labels)
                    else 0
                ),
                lambda: fleet.label_set_count,
            )

    def number(self, row: int) -> int:
        """The number of the device's value. 0 if it has another value, or no such label."""
        fleet = self._fleet
        return self._answers.code(fleet.kit_id(row) if self._is_profile else fleet.label_id(row))

    def numbers(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """``number`` for each of ``rows``."""
        column = self._fleet.kit_ids if self._is_profile else self._fleet.label_ids
        return self._answers.codes()[column[rows]]

    def has(self, row: int) -> bool:
        """True if the device has one of the values."""
        return self.number(row) > 0

    def all_have(self, rows: Rows) -> Mask:
        """``has`` for each of ``rows``."""
        found: Mask = self.numbers(rows) > 0
        return found
