"""The view of a run for checkers: the hub's engine, and the true state of every device."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.sim.virtual.store import Store


class RunView(Protocol):
    """A read-only view of the run."""

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
        """For each row the number of the release that the device really serves, 0 for none."""
        ...

    def reachable(self) -> Mask:
        """For each row whether the device is alive and its link is up."""
        ...

    def name(self, row: int) -> str: ...
