"""Quarantine: a device that rolled back two releases of a model is offered no more of that model.

A rollback is one rollout of a model after which the device reverted, by itself or because the
rollout was reverted. The quarantine ends when an operator clears the device.
"""

from collections import Counter
from typing import ClassVar, Final

import numpy as np

from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.fleet.columns import Mask, Rows

TOO_MANY: Final = 2


class Quarantine:
    """Rollbacks by model and device, from reports, and the counts that operators cleared."""

    code: ClassVar = WaitCode.QUARANTINED
    blocks_downloads: ClassVar = True

    def __init__(self) -> None:
        self.is_active = False  # a device was quarantined once
        self.counts: dict[str, Counter[int]] = {}  # model -> row -> rollbacks
        self._cleared: dict[tuple[str, int], int] = {}
        self._rows: dict[str, Rows] = {}

    def add(self, model: str, row: int) -> None:
        """Count one more rollback of the device."""
        counts = self.counts.setdefault(model, Counter())
        counts[row] += 1
        if counts[row] >= TOO_MANY:
            self.is_active = True
        self._rows.pop(model, None)

    def count(self, model: str, row: int) -> int:
        found = self.counts.get(model)
        return 0 if found is None else found[row]

    def unquarantine(self, model: str, row: int, rollbacks: int) -> None:
        """An operator cleared the device at this number of ``rollbacks``."""
        self._cleared[model, row] = rollbacks
        self._rows.pop(model, None)

    def is_quarantined(self, model: str, row: int) -> bool:
        """True from the second rollback until an operator clears the device."""
        counts = self.counts.get(model)
        if counts is None:
            return False
        count = counts[row]
        return count >= TOO_MANY and count - self._cleared.get((model, row), 0) >= TOO_MANY

    def rows(self, model: str) -> Rows:
        """Rows that are quarantined, ascending."""
        if model not in self._rows:
            counts = self.counts.get(model, ())
            found = sorted(row for row in counts if self.is_quarantined(model, row))
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
            return (
                "Quarantined: these devices rolled back two releases."
                " Inspect each, then run `edgefleet device unquarantine NAME`."
            )
        return (
            "Quarantined: this device rolled back two releases."
            f" Inspect the device, then run `edgefleet device unquarantine {name}`."
        )

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self.counts))
