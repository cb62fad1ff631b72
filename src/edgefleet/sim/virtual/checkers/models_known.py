"""The hub knows the models of each device, and asks a device once for all of them."""

from typing import ClassVar

import numpy as np

from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.scenario import NEW, OLD
from edgefleet.sim.virtual.truth import NOTHING, RunView


class ModelsKnown(Checker):
    """Compares the hub's table with the devices, and counts the lists.

    A device that has sent the full list since the hub started is not asked again: the changes in
    its check-ins are enough.
    """

    name: ClassVar[str] = "models_known"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._hub = run.engine
        self._sent = RowSet()  # the full list, since the hub started

    def listed(self, rows: Rows, now: float, *, full: bool, wanted: bool) -> None:
        if self._hub is not self.engine:
            self._hub = self.engine
            self._sent = RowSet()
        again = rows[self._sent.has(rows)] if wanted else rows[:0]
        if full:
            self._sent.add(rows)
            again = rows if wanted else again
        if len(again):
            self.wrong(f"{self.named(again)} sent all its models, and the hub asks for them again")

    def ended(self, now: float) -> None:
        settled = np.flatnonzero(self.run.settled() & self.run.reachable())
        models = self.engine.fleet.models
        for model in self.run.models:
            numbers = [NOTHING, *(models.release_id(model, release) for release in (OLD, NEW))]
            truth = np.array(numbers)[self.run.serves(model)[settled]]
            wrong = settled[models.all_releases(settled, model) != truth]
            if len(wrong):
                name = self.named(wrong)
                self.wrong(f"{name}: the hub has another release of {model} in its table")
