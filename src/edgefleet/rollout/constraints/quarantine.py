"""Quarantine: a device that failed two releases of a model is offered no more of that model.

Only failures that may be the device's own count. A failure of a release that was taken back, from
the whole fleet or from a part that contains the device, by the gate or by a person, is the
release's. A revert on the hub's order is no failure at all, and neither is one in an outage of the
device's site. Two failures of one release count once. The quarantine ends when an operator clears
the device.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np

from edgefleet.protocol.rollout import Part
from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.evidence.taken_parts import TakenParts
from edgefleet.rollout.fleet.columns import Mask, Rows

TOO_MANY: Final = 2


class Quarantine:
    """Failures by model and device, from reports, and the counts that operators cleared.

    The counts are functions of the reports and of the rollouts, whatever their order.
    """

    advice: ClassVar = (
        "Quarantined: two different releases failed on each of these devices."
        " Inspect each, then run `edgefleet device unquarantine NAME`."
    )
    code: ClassVar = WaitCode.QUARANTINED
    blocks_downloads: ClassVar = True

    def __init__(self) -> None:
        self.is_active = False  # a device failed twice once
        self._failures: dict[str, dict[int, tuple[str, ...]]] = {}  # model -> row -> rollouts
        self._kept: dict[str, int] = {}  # rollout -> number of its release, unless taken back
        self._parts: dict[str, TakenParts[Part]] = {}  # by rollout: these are not to blame
        self._cleared: dict[tuple[str, int], int] = {}
        self._rows: dict[str, Rows] = {}

    def arrange(self, kept: Mapping[str, int], parts: Mapping[str, TakenParts[Part]]) -> None:
        """Set the rollouts that were not taken back, each with the number of its release.

        ``parts`` are those from which these rollouts took the release back, and the devices whose
        site went dark while they were in trial.
        """
        if kept != self._kept or parts != self._parts:
            self._kept, self._parts = dict(kept), dict(parts)
            self._rows.clear()

    def add(self, model: str, row: int, rollout: str) -> None:
        """Add a failure of the device in a rollout, which it reports by itself."""
        failures = self._failures.setdefault(model, {})
        failures[row] = (*failures.get(row, ()), rollout)
        if len(failures[row]) >= TOO_MANY:
            self.is_active = True
            self._rows.pop(model, None)

    def forget(self, row: int) -> None:
        """Drop the failures of a device that was removed from the fleet."""
        for failures in self._failures.values():
            failures.pop(row, None)
        self._rows.clear()

    def count(self, model: str, row: int) -> int:
        """Number of different releases that failed on the device and were not taken back."""
        rollouts = self._failures.get(model, {}).get(row, ())
        return len({self._kept[rollout] for rollout in rollouts if self._blames(rollout, row)})

    def _blames(self, rollout: str, row: int) -> bool:
        """True if a failure in the rollout may be the device's own."""
        if rollout not in self._kept:
            return False
        parts = self._parts.get(rollout)
        return parts is None or not parts.has(row)

    def unquarantine(self, model: str, row: int, rollbacks: int) -> None:
        """An operator cleared the device at this number of ``rollbacks``."""
        self._cleared[model, row] = rollbacks
        self._rows.pop(model, None)

    def is_quarantined(self, model: str, row: int) -> bool:
        """True from the second failure until an operator clears the device."""
        if len(self._failures.get(model, {}).get(row, ())) < TOO_MANY:
            return False
        count = self.count(model, row)
        return count >= TOO_MANY and count - self._cleared.get((model, row), 0) >= TOO_MANY

    def rows(self, model: str) -> Rows:
        """Rows that are quarantined, ascending."""
        if model not in self._rows:
            failed = self._failures.get(model, {})
            twice = (row for row, rollouts in failed.items() if len(rollouts) >= TOO_MANY)
            found = sorted(row for row in twice if self.is_quarantined(model, row))
            self._rows[model] = np.array(found, np.int64)
        return self._rows[model]

    def blocks(self, rollout: str, model: str, row: int) -> bool:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return self.is_quarantined(model, row)

    def blocked_rows(self, rollout: str, model: str) -> Rows:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return self.rows(model)

    def blocks_all(self, rollout: str, model: str, rows: Rows) -> Mask:
        """See ``DeviceConstraint``."""
        return np.isin(rows, self.blocked_rows(rollout, model))

    def text(self, rollout: str, row: int | None, name: str | None) -> str:  # noqa: ARG002
        """See ``DeviceConstraint``. The sentence has the command to run."""
        if name is None:
            return self.advice
        return (
            "Quarantined: two different releases failed on this device."
            f" Inspect the device, then run `edgefleet device unquarantine {name}`."
        )

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self._failures))
