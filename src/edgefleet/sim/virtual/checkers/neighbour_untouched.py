"""A rollout changes its own model only. The other models of a device are served without a break."""

from collections import defaultdict
from typing import ClassVar

from edgefleet.protocol.device import Offer
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.lifecycle.state import WITHDRAWN, RolloutState
from edgefleet.sim.virtual.classes_back import has_class
from edgefleet.sim.virtual.observer import Checker, Report
from edgefleet.sim.virtual.row_set import RowSet
from edgefleet.sim.virtual.truth import NOTHING, UNDER_TEST, RunView


class NeighbourUntouched(Checker):
    """Checks every offer, every activation, and every model that a device stops to serve.

    A device that has confirmed the release under test of a model keeps it until the rollout of that
    model is rolled back. The rollback of another model, or a failed trial of it, is no reason.
    """

    name: ClassVar[str] = "neighbour_untouched"

    def __init__(self, run: RunView, report: Report) -> None:
        super().__init__(run, report)
        self._offered: defaultdict[tuple[str, str, str], RowSet] = defaultdict(RowSet)
        self._keeps: defaultdict[str, RowSet] = defaultdict(RowSet)  # by model: confirmed it
        self._withdrawn: set[str] = set()  # models whose release under test is rolled back
        self._from_classes: dict[str, RolloutState] = {}  # by model: rolled back from classes only

    def changed(self, before: RolloutState | None, after: RolloutState, now: float) -> None:
        model = after.spec.model
        if after.spec.release == UNDER_TEST and after.status in WITHDRAWN:
            self._withdrawn.add(model)
        elif after.spec.release == UNDER_TEST and after.taken_back:
            self._from_classes[model] = after

    def offered(self, rows: Rows, offer: Offer, now: float) -> None:
        mine = self.run.model_of(offer.rollout)
        if mine != offer.model:
            self.wrong(
                f"{self.named(rows)}: {offer.rollout} is of {mine} and changes {offer.model}"
            )
        self._check_kept(rows, offer.model, offer.release, "is offered")
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
        self._check_kept(rows, model, release, "serves")
        if action == "restore":
            return
        other = rows[~self._offered[model, release, action].has(rows)]
        if len(other):
            self.wrong(f"{self.named(other)} serves {model} {release}, which no rollout offered")

    def confirmed(self, rows: Rows, model: str, release: str, now: float) -> None:
        self._check_kept(rows, model, release, "goes back to")
        if release == UNDER_TEST:
            self._keeps[model].add(rows)
        else:
            self._keeps[model].discard(rows)

    def dropped(self, rows: Rows, model: str, now: float, *, on_trial: bool) -> None:
        if not on_trial:
            self.wrong(f"{self.named(rows)} no longer serves {model}, which was confirmed")

    def _check_kept(self, rows: Rows, model: str, release: str, verb: str) -> None:
        """No device leaves a confirmed release under test that is not rolled back."""
        if release == UNDER_TEST or model in self._withdrawn:
            return
        kept = rows[self._keeps[model].has(rows)]
        if len(kept) and (state := self._from_classes.get(model)) is not None:
            kept = kept[~has_class(self.engine, kept, state)]
        if len(kept):
            self.wrong(
                f"{self.named(kept)} {verb} {model} {release}, but {model} {UNDER_TEST} is "
                "confirmed there and is not rolled back"
            )
