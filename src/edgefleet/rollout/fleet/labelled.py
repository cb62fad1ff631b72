"""Devices with one value of a label, or with one profile (hardware class)."""

from edgefleet.protocol.rollout import PROFILE
from edgefleet.rollout.fleet.answers import Answers
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet


class Labelled:
    """The devices whose label ``key`` has ``value`` now. The key ``profile`` is the profile."""

    def __init__(self, fleet: Fleet, key: str, value: str) -> None:
        self._fleet = fleet
        self._is_profile = key == PROFILE
        if self._is_profile:
            self._answers = Answers(
                lambda number: fleet.kit(number).profile == value, lambda: fleet.kit_count
            )
        else:
            self._answers = Answers(
                lambda number: fleet.label_set(number).get(key) == value,
                lambda: fleet.label_set_count,
            )

    def has(self, row: int) -> bool:
        """True if the device has the value."""
        fleet = self._fleet
        return self._answers[fleet.kit_id(row) if self._is_profile else fleet.label_id(row)]

    def all_have(self, rows: Rows) -> Mask:
        """``has`` for each of ``rows``."""
        numbers = self._fleet.kit_ids if self._is_profile else self._fleet.label_ids
        found: Mask = self._answers.all()[numbers[rows]]
        return found
