"""A device has one model in trial at a time, and begins no trial while another model goes back."""

from typing import ClassVar

from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.observer import Checker, Switches


class OneTrial(Checker):
    """Looks at the devices and their serving processes, not at the reports to the hub.

    A model may go back at any time, also beside a trial that began before.
    """

    name: ClassVar[str] = "one_trial"

    def switching(self, rows: Rows, switches: Switches, now: float) -> None:
        trials = switches.trials
        if len(trials) > 1:
            self.wrong(f"{self.named(rows)}: {_listed(trials)} are in trial at once")
        elif switches.began:
            began, returns = _listed(switches.began), _listed(switches.returns)
            self.wrong(f"{self.named(rows)}: the trial of {began} begins while {returns} goes back")


def _listed(models: frozenset[str]) -> str:
    return " and ".join(sorted(models))
