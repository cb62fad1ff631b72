"""The view of a run for checkers: the hub's engine, and the true state of every device."""

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.sim.virtual.scenario import MODEL, NEW
from edgefleet.sim.virtual.store import Store

NOTHING: Final = 0  # in ``serves``
NEW_NUMBER: Final = 2  # the old release has 1
UNDER_TEST: Final = NEW


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
    def models(self) -> tuple[str, ...]:
        """All models of the fleet."""
        ...

    @property
    def rollouts(self) -> Mapping[str, str]:
        """The rollouts of new releases: their ids by model. Some may not be planned yet."""
        ...

    @property
    def one_model(self) -> Mask:
        """For each row whether the agent has one model."""
        ...

    def model_of(self, rollout: str) -> str:
        """The model of a planned rollout."""
        ...

    def serves(self, model: str = MODEL) -> npt.NDArray[np.uint8]:
        """For each row the number of the release that the device really serves, 0 for none."""
        ...

    def has(self, model: str) -> Mask:
        """For each row whether the device has the model from the start, or should get it then.

        A newcomer whose agent has one model keeps the model that it got first.
        """
        ...

    def settled(self) -> Mask:
        """For each row whether the device is idle, and has reported all that it did."""
        ...

    def reachable(self) -> Mask:
        """For each row whether the device is alive and its link is up."""
        ...

    def name(self, row: int) -> str: ...
