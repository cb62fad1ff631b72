"""Copied devices: two devices use one credential, so their reports cannot be told apart."""

from typing import ClassVar

import numpy as np

from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.fleet.boots import Boots
from edgefleet.rollout.fleet.columns import Mask, Rows


class Copied:
    """Blocks devices whose credential two devices use."""

    code: ClassVar = WaitCode.COPIED
    blocks_downloads: ClassVar = True

    def __init__(self, boots: Boots) -> None:
        self._boots = boots

    @property
    def is_active(self) -> bool:
        return len(self._boots.copied_rows) > 0

    def blocks(self, rollout: str, model: str, row: int) -> bool:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return self._boots.is_copied(row)

    def blocked_rows(self, rollout: str, model: str) -> Rows:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return self._boots.copied_rows

    def blocks_all(self, rollout: str, model: str, rows: Rows) -> Mask:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return np.isin(rows, self._boots.copied_rows)

    def text(self, rollout: str, row: int | None, name: str | None) -> str:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        which = name or "each of these devices"
        return (
            f"Two devices use the credential of {which}, as after a copy of a disk. Neither starts "
            "a release. Stop one of them, empty its data folder, and enrol it with a claim of its "
            "own."
        )
