"""A rollout changes its own model only. The other models of a device are served without a break."""

from collections import defaultdict
from typing import ClassVar

from edgefleet.protocol.device import Offer
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import NOTHING, UNDER_TEST, RunView


class NeighbourUntouched(Checker):
    """Checks every offer, every activation, and every model that a device stops to serve."""

    name: ClassVar[str] = "neighbour_untouched"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._offered: defaultdict[tuple[str, str, str], RowSet] = defaultdict(RowSet)

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        mine = self.run.model_of(offer.rollout)
        if mine != offer.model:
            self.wrong(
                f"{self.named(rows)}: {offer.rollout} is of {mine} and changes {offer.model}"
            )
        self._offered[offer.model, offer.release, offer.action].add(rows)
        single = rows[self.run.one_model[rows]]
        for other in self.run.models if len(single) else ():
            has_other = single[self.run.serves(other)[single] != NOTHING]
            if other != offer.model and len(has_other):
                name = self.named(has_other)
                self.wrong(f"{name} has {other} and one model only, and is offered {offer.model}")

    def activated(self, rows: Rows, model: str, release: str, action: str, now: float) -> None:
        if release == UNDER_TEST and model not in self.run.rollouts:
            self.wrong(f"{self.named(rows)} serves {model} {release}, which no rollout gives")
        if action == "restore":
            return
        other = rows[~self._offered[model, release, action].has(rows)]
        if len(other):
            self.wrong(f"{self.named(other)} serves {model} {release}, which no rollout offered")

    def dropped(self, rows: Rows, model: str, now: float, *, on_trial: bool) -> None:
        if not on_trial:
            self.wrong(f"{self.named(rows)} no longer serves {model}, which was confirmed")
