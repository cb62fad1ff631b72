"""Copied devices: several agents use one credential, so their reports cannot be told apart."""

from typing import ClassVar, Final

import numpy as np

from edgefleet.protocol.why import Wait, WaitCode
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.copies import Copies

_TEXT: Final = (
    "Several agents use the credential of {which}, as after a copy of a disk. None of them gets a "
    "new release. Stop all but one, or give each other one an empty data folder and its own claim."
    " Then run `edgefleet device clear-copy {name}`."
)


class Copied:
    """Blocks copied devices. A rollback is still offered to each of their agents."""

    advice: ClassVar = _TEXT.format(which="each of these devices", name="NAME")
    code: ClassVar = WaitCode.COPIED
    blocks_downloads: ClassVar = True

    def __init__(self, copies: Copies) -> None:
        self._copies = copies

    @property
    def is_active(self) -> bool:
        """See ``DeviceConstraint``."""
        return len(self._copies.rows) > 0

    def blocks(self, rollout: str, model: str, row: int) -> bool:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return self._copies.is_copied(row)

    def blocked_rows(self, rollout: str, model: str) -> Rows:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return self._copies.rows

    def blocks_all(self, rollout: str, model: str, rows: Rows) -> Mask:  # noqa: ARG002
        """See ``DeviceConstraint``."""
        return np.isin(rows, self._copies.rows)

    def text(self, rollout: str, row: int | None, name: str | None) -> str:  # noqa: ARG002
        """See ``DeviceConstraint``. The sentence has the command to run."""
        return self.advice if name is None else copied_wait(name).text


def copied_wait(name: str) -> Wait:
    """The wait of a copied device."""
    return Wait(code=WaitCode.COPIED, text=_TEXT.format(which=name, name=name))
