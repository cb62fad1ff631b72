"""After a revert every device that can be reached is on the previous release."""

from typing import ClassVar

import numpy as np

from edgefleet.protocol.rollout import Status
from edgefleet.rollout.lifecycle.state import RolloutState
from edgefleet.rollout.lifecycle.step import returned_by
from edgefleet.sim.virtual.observer import Checker

_UNDER_TEST = 2  # its number in ``serves``


class WentBack(Checker):
    """Looks at the truth of the devices, once everything is over."""

    name: ClassVar[str] = "went_back"

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        """Nobody says that it is done while a device that was just heard still runs it."""
        if after.status is not Status.REVERTED or before is None:
            return
        if now >= returned_by(before):
            return  # who will not go back is left behind, and counted in the text
        running = (self.crowd.serves() == _UNDER_TEST) & self.crowd.reachable()
        fleet = self.engine.fleet
        for row in np.flatnonzero(running).tolist():
            said = fleet.running(row)
            if fleet.online(row, now) and said is not None and said[1] == after.spec.release:
                self.wrong(f"it is reverted, but {self.crowd.name(row)} runs it and said so")
                return

    def ended(self, now: float) -> None:
        statuses = {
            state.status
            for state in self.engine.states()
            if state.spec.release == self.crowd.release_under_test
        }
        if not statuses or not statuses <= {Status.REVERTED, Status.REFUSED}:
            return
        left = np.flatnonzero((self.crowd.serves() == _UNDER_TEST) & self.crowd.reachable())
        if len(left):
            first = ", ".join(self.crowd.name(row) for row in left[:3].tolist())
            self.wrong(f"{len(left)} devices still run it: {first}")
