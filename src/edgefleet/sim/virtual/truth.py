"""What a checker may know of a run: the hub's engine, and the truth about every device."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.sim.virtual.store import Store


class CrowdView(Protocol):
    """The run, read only."""

    @property
    def now(self) -> float: ...

    @property
    def healed(self) -> bool: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def store(self) -> Store: ...

    @property
    def release_under_test(self) -> str: ...

    def serves(self) -> npt.NDArray[np.uint8]:
        """For each row the release that the device really serves: 0 none, else its number."""
        ...

    def reachable(self) -> Mask:
        """For each row: it lives, and its link is up."""
        ...

    def name(self, row: int) -> str: ...
