"""The reason why a device may not download or start a release now, and who asks for it."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from edgefleet.protocol.why import WaitCode
from edgefleet.rollout.fleet.columns import Mask, Rows


@dataclass(frozen=True, slots=True)
class Blocked:
    """The reason why a device may not start or download now. ``until``: None if it is unknown."""

    code: WaitCode
    text: str
    until: float | None = None
    since: float | None = None


class DeviceConstraint(Protocol):
    """A reason that blocks single devices from the rollouts of a model.

    Admission, the batch path and ``why`` ask every constraint in ``FleetConstraints.per_device``.
    """

    code: ClassVar[WaitCode]
    blocks_downloads: ClassVar[bool]  # False: it blocks starts only

    @property
    def is_active(self) -> bool:
        """False while it blocks no device at all: nothing else is asked then."""
        ...

    def blocks(self, rollout: str, model: str, row: int) -> bool:
        """True if the device may not start the release of the rollout."""
        ...

    def blocked_rows(self, rollout: str, model: str) -> Rows:
        """The devices that it blocks, ascending."""
        ...

    def blocks_all(self, rollout: str, model: str, rows: Rows) -> Mask:
        """``blocks`` for each of the ascending ``rows``."""
        ...

    def text(self, rollout: str, row: int | None, name: str | None) -> str:
        """The sentence for one device. Without ``row`` and ``name``: for several devices."""
        ...
