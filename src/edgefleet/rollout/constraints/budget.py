"""Budgets by label: how many devices with the same value are in trial at once, of all rollouts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import BudgetSpec
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.limits import BUDGETS


def check_budgets(budgets: tuple[BudgetSpec, ...], fleet: Fleet) -> None:
    """Raises OperatorError ``budget_invalid`` or ``selector_key_unknown``."""
    if len(budgets) > BUDGETS:
        raise OperatorError("budget_invalid", f"There are {len(budgets)} budgets.", field="budgets")
    for index, budget in enumerate(budgets):
        if budget.max_in_trial < 1:
            raise OperatorError(
                "budget_invalid",
                f"{budget.max_in_trial} devices could never begin.",
                field=f"budgets[{index}].max_in_trial",
            )
        if budget.label not in fleet.label_keys:
            raise OperatorError(
                "selector_key_unknown",
                f"No device carries the label {budget.label!r}.",
                field=f"budgets[{index}].label",
            )


class Budgets:
    """Places taken by label value. A device counts by the labels that it had when it began.

    A rollout without budgets counts for those of others, which ``watch`` its devices.
    """

    def __init__(self, specs: tuple[BudgetSpec, ...]) -> None:
        self.specs = specs
        self.beside: tuple[Budgets, ...] = ()  # those of the other open rollouts
        self._taken: dict[str, Counter[str]] = {spec.label: Counter() for spec in specs}
        self.counts = bool(specs)  # devices that begin, for this rollout or for others
        self._labels: dict[int, Mapping[str, str]] = {}  # by row, of those in trial
        self._counted: tuple[int, int | None] = (0, None)  # label sets, and the places of them all

    def watch(
        self, labels: frozenset[str], in_trial: Callable[[], Mapping[int, Mapping[str, str]]]
    ) -> None:
        """Count by these labels, too. ``in_trial``: who is, by row, with the labels of now."""
        new = labels - self._taken.keys()
        if not new:
            return
        if not self._taken:
            self._labels = dict(in_trial())
        self.counts = True
        for label in new:
            found = (began.get(label) for began in self._labels.values())
            self._taken[label] = Counter(value for value in found if value is not None)

    def taken(self, label: str, value: str) -> int:
        """How many devices with that value are in trial, by this rollout alone."""
        counts = self._taken.get(label)
        return 0 if counts is None else counts[value]

    def full(self, labels: Mapping[str, str]) -> BudgetSpec | None:
        """The first budget that has no place left for a device with these labels."""
        for spec in self.specs:
            value = labels.get(spec.label)
            if value is None:
                continue
            taken = self.taken(spec.label, value)
            taken += sum(other.taken(spec.label, value) for other in self.beside)
            if taken >= spec.max_in_trial:
                return spec
        return None

    def places(self, fleet: Fleet) -> int | None:
        """How many can be in trial at once in the whole fleet; None where nothing bounds it."""
        if not self.specs:
            return None
        count = fleet.label_set_count
        if self._counted[0] != count:
            sets = [fleet.label_set(number) for number in range(count)]
            bounds = [_places(spec, sets) for spec in self.specs]
            known = [bound for bound in bounds if bound is not None]
            self._counted = (count, min(known, default=None))
        return self._counted[1]

    def take(self, row: int, labels: Mapping[str, str]) -> None:
        """The device begins; again is once."""
        if not self._taken or row in self._labels:
            return
        self._labels[row] = labels
        for label, taken in self._taken.items():
            value = labels.get(label)
            if value is not None:
                taken[value] += 1

    def give_back(self, row: int) -> None:
        """The device is in trial no more."""
        labels = self._labels.pop(row, None)
        if labels is None:
            return
        for label, taken in self._taken.items():
            value = labels.get(label)
            if value is not None:
                taken[value] -= 1
                if not taken[value]:
                    del taken[value]

    def blocked(self, rows: Rows, fleet: Fleet) -> Mask:
        """Which of ``rows`` find no place now."""
        mask = np.zeros(len(rows), np.bool_)
        if not self.specs or not len(rows):
            return mask
        numbers = fleet.label_ids[rows]
        full = {
            number: self.full(fleet.label_set(number)) is not None
            for number in np.flatnonzero(np.bincount(numbers)).tolist()
        }
        table = np.zeros(fleet.label_set_count, np.bool_)
        for number, is_full in full.items():
            table[number] = is_full
        mask |= table[numbers]
        return mask


def _places(spec: BudgetSpec, sets: Sequence[Mapping[str, str]]) -> int | None:
    values = {labels.get(spec.label) for labels in sets}
    return None if None in values else len(values) * spec.max_in_trial
