"""Every rollout ends after the faults are healed."""

from typing import ClassVar

from edgefleet.rollout.lifecycle.state import OPEN
from edgefleet.sim.virtual.observer import Checker


class Ends(Checker):
    """Checks that no rollout is open at the end of the run."""

    name: ClassVar[str] = "ends"

    def ended(self, now: float) -> None:
        for state in self.engine.states():
            if state.status in OPEN:
                report = self.engine.why_rollout(state.id, now)
                self.wrong(f"{state.id} is still {state.status}: {report.line}")
