"""The constraints that apply to the whole fleet, over all rollouts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgefleet.protocol.rollout import Freeze, RolloutSpec
from edgefleet.rollout.constraints.label_budget import Budgets, LabelsByRow
from edgefleet.rollout.constraints.pace import ByteBudget
from edgefleet.rollout.constraints.quarantine import Quarantine


@dataclass(slots=True)
class FleetConstraints:
    """Freeze, quarantine, budgets by label and byte budget. An engine has one such object."""

    freeze: Freeze = field(default_factory=lambda: Freeze(frozen=False))
    quarantine: Quarantine = field(default_factory=Quarantine)
    budgets: Budgets = field(default_factory=Budgets)
    bytes: ByteBudget = field(default_factory=ByteBudget)

    def arrange(
        self, specs: Mapping[str, RolloutSpec], in_trial: Callable[[str], LabelsByRow]
    ) -> None:
        """Set the limits of the open rollouts. To be called when a rollout is added or changes.

        ``specs`` maps the id of each open rollout to its plan. ``in_trial`` returns the devices in
        trial of one rollout with their current labels.
        """
        labels = frozenset(one.label for spec in specs.values() for one in spec.budgets)
        if labels or self.budgets.counts:
            self.budgets.arrange(labels, specs.keys(), in_trial)
        paces = {(spec.site_label, spec.pace) for spec in specs.values()}
        bounded = any(pace.bytes_per_s or pace.bytes_per_s_per_site for _, pace in paces)
        if bounded or self.bytes.is_bounded:
            self.bytes.arrange(paces)
