"""The constraints that apply to the whole fleet, over all rollouts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgefleet.protocol.rollout import Freeze, RolloutSpec
from edgefleet.protocol.why import WAITS
from edgefleet.rollout.constraints.ahead import Ahead
from edgefleet.rollout.constraints.blocked import DeviceConstraint
from edgefleet.rollout.constraints.copied import Copied
from edgefleet.rollout.constraints.label_budget import Budgets, LabelsByRow
from edgefleet.rollout.constraints.memory import Memory
from edgefleet.rollout.constraints.other_trial import Giver, OtherTrial, Trials
from edgefleet.rollout.constraints.pace import ByteBudget
from edgefleet.rollout.constraints.quarantine import Quarantine
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.fleet import Fleet


@dataclass(slots=True)
class FleetConstraints:
    """Freeze, quarantine, budgets by label and byte budget. An engine has one such object."""

    fleet: Fleet
    freeze: Freeze = field(default_factory=lambda: Freeze(frozen=False))
    quarantine: Quarantine = field(default_factory=Quarantine)
    ahead: Ahead = field(default_factory=Ahead)
    budgets: Budgets = field(default_factory=Budgets)
    bytes: ByteBudget = field(default_factory=ByteBudget)
    copied: Copied = field(init=False)
    other_trial: OtherTrial = field(init=False)
    memory: Memory = field(init=False)
    per_device: tuple[DeviceConstraint, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.copied = Copied(self.fleet.copies)
        self.other_trial = OtherTrial(self.fleet.models)
        self.memory = Memory(self.fleet)
        self.per_device = (self.ahead, self.copied, self.quarantine, self.memory, self.other_trial)

    def without_download(self, rollout: str, model: str) -> Rows:
        """The devices that may not download now, ascending."""
        return self._blocked_rows(rollout, model, lambda one: one.blocks_downloads)

    def for_a_person(self, rollout: str, model: str) -> Rows:
        """The devices that are blocked until a person acts, ascending. No wave waits for them."""
        return self._blocked_rows(rollout, model, lambda one: WAITS[one.code].needs_a_person)

    def for_a_person_by_code(self, model: str) -> dict[str, Rows]:
        """The same for any rollout of the model, by wait code. Each device has one code."""
        found: dict[str, Rows] = {}
        seen = np.zeros(0, np.int64)
        for one in self.per_device:
            if one.is_active and WAITS[one.code].needs_a_person:
                rows = one.blocked_rows("", model)
                found[one.code.value] = np.setdiff1d(rows, seen, assume_unique=True)
                seen = np.union1d(seen, rows)
        return found

    def patient_rows(self, rollout: str, model: str) -> Rows:
        """The devices that are blocked and become no stragglers meanwhile, ascending."""
        return self._blocked_rows(rollout, model, lambda one: WAITS[one.code].pauses_patience)

    def arrange(
        self,
        specs: Mapping[str, RolloutSpec],
        completed: Mapping[str, RolloutSpec],
        in_trial: Callable[[str], LabelsByRow],
        trials: tuple[Trials, ...],
        giver: Giver,
    ) -> None:
        """Set the limits of the rollouts. To be called when a rollout is added or changes.

        ``specs`` maps the id of each open rollout to its plan, ``completed`` that of each completed
        one with budgets, which devices that come later still start. ``in_trial`` returns the
        devices in trial of one rollout with their current labels. ``trials`` has every rollout, or
        none if all are of one model. ``giver`` returns the rollout that gives a device a model.
        """
        if trials or self.other_trial.is_active:
            self.other_trial.arrange(trials, giver)
        counted = {**specs, **completed}
        labels = frozenset(one.label for spec in counted.values() for one in spec.budgets)
        if labels or self.budgets.counts:
            self.budgets.arrange(labels, counted.keys(), in_trial)
        paces = {(spec.site_label, spec.pace) for spec in specs.values()}
        bounded = any(pace.bytes_per_s or pace.bytes_per_s_per_site for _, pace in paces)
        if bounded or self.bytes.is_bounded:
            self.bytes.arrange(paces)

    def _blocked_rows(
        self, rollout: str, model: str, which: Callable[[DeviceConstraint], bool]
    ) -> Rows:
        asked = (one for one in self.per_device if one.is_active and which(one))
        found = [one.blocked_rows(rollout, model) for one in asked]
        if len(found) == 1:
            return found[0]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))
