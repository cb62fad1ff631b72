"""Devices ahead of the hub: they run what a rollout gave them of which the hub has no record.

The cause is a restore of the hub from an older copy. Nothing is offered to such a device until
an operator accepts the state of the hub.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

import numpy as np

from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.fleet.columns import Mask, Rows

Given = tuple[tuple[str, str], ...]
"""Models, each with the rollout that gave the device its release."""

AHEAD_TEXT: Final = (
    "was given its release by a rollout that this hub has no record of, as after a restore of the "
    "hub from an older copy. Nothing is offered to it. Publish what is missing, then run "
    "`edgefleet hub accept-restored`."
)


class Ahead:
    """The devices ahead of the hub, by row. ``changed`` rows are not stored yet.

    Rollouts with an id up to ``accepted`` (ids sort by age) are accepted.
    """

    code: ClassVar = WaitCode.AHEAD
    blocks_downloads: ClassVar = True

    def __init__(self) -> None:
        self.is_active = False
        self.accepted = ""
        self.changed: set[int] = set()
        self._given: dict[int, Given] = {}
        self._rows: Rows = np.zeros(0, np.int64)

    def load(self, given: Mapping[int, Given], accepted: str) -> None:
        """Restore from the store."""
        self._given, self.accepted = dict(given), accepted
        self._arrange()

    def set(self, row: int, given: Given) -> None:
        """Set what the hub has no record of on a device. Empty: nothing."""
        if given == self._given.get(row, ()):
            return
        if given:
            self._given[row] = given
        else:
            del self._given[row]
        self.changed.add(row)
        self._arrange()

    def accept(self, accepted: str) -> None:
        """An operator accepted the state of the hub. It is durable."""
        self.load({}, accepted)
        self.changed.clear()

    def given(self, row: int) -> Given:
        """The rollouts of a device of which the hub has no record."""
        return self._given.get(row, ())

    def devices(self) -> Iterator[tuple[int, Given]]:
        """All devices ahead of the hub."""
        yield from self._given.items()

    def __len__(self) -> int:
        return len(self._given)

    def blocks(self, rollout: str, model: str, row: int) -> bool:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return row in self._given

    def blocked_rows(self, rollout: str, model: str) -> Rows:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return self._rows

    def blocks_all(self, rollout: str, model: str, rows: Rows) -> Mask:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return np.isin(rows, self._rows)

    def text(self, rollout: str, row: int | None, name: str | None) -> str:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return f"{'This device' if name else 'Each of these devices'} {AHEAD_TEXT}"

    def _arrange(self) -> None:
        self._rows = np.array(sorted(self._given), np.int64)
        self.is_active = bool(self._given)
