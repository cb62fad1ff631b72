"""Budgets by label: how many devices with the same value are in trial at once."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import BudgetSpec
from edgefleet.rollout.fleet import Fleet, Mask, Rows
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
    """Places taken by label value. A device counts by the labels that it had when it began."""

    def __init__(self, specs: tuple[BudgetSpec, ...]) -> None:
        self.specs = specs
        self._taken: tuple[Counter[str], ...] = tuple(Counter() for _ in specs)
        self._values: dict[int, tuple[str | None, ...]] = {}  # by row, of those in trial
        self._counted: tuple[int, int | None] = (0, None)  # label sets, and the places of them all

    def full(self, labels: Mapping[str, str]) -> BudgetSpec | None:
        """The first budget that has no place left for a device with these labels."""
        for spec, taken in zip(self.specs, self._taken, strict=True):
            value = labels.get(spec.label)
            if value is not None and taken[value] >= spec.max_in_trial:
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
        if not self.specs or row in self._values:
            return
        values = self._values[row] = tuple(labels.get(spec.label) for spec in self.specs)
        for value, taken in zip(values, self._taken, strict=True):
            if value is not None:
                taken[value] += 1

    def give_back(self, row: int) -> None:
        """The device is in trial no more."""
        for value, taken in zip(self._values.pop(row, ()), self._taken, strict=False):
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
