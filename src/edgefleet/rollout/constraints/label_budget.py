"""Budgets by label: how many devices with the same label value may be in trial at once."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.rollout import BudgetSpec
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.limits import BUDGETS

LabelsByRow = Mapping[int, Mapping[str, str]]
"""Row of a device -> its labels."""


def check_budgets(budgets: tuple[BudgetSpec, ...], fleet: Fleet) -> None:
    """Raises OperatorError ``budget_invalid`` or ``selector_key_unknown``."""
    if len(budgets) > BUDGETS:
        raise OperatorError(
            "budget_invalid",
            f"The plan has {len(budgets)} budgets; at most {BUDGETS} are allowed.",
            field="budgets",
        )
    for index, budget in enumerate(budgets):
        if budget.max_in_trial < 1:
            raise OperatorError(
                "budget_invalid",
                f"A budget must allow at least 1 device in trial, not {budget.max_in_trial}.",
                field=f"budgets[{index}].max_in_trial",
            )
        if budget.label not in fleet.label_keys:
            raise OperatorError(
                "selector_key_unknown",
                f"No device carries the label {budget.label!r}.",
                field=f"budgets[{index}].label",
            )


class Budgets:
    """The number of devices in trial by label value, over all rollouts.

    Completed rollouts count only if they have budgets themselves. A device counts under the labels
    that it had when its trial began. Nothing is counted while no rollout has a budget.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}  # label -> value -> places in use
        self._in_trial: dict[str, dict[int, Mapping[str, str]]] = {}  # rollout -> row -> labels
        self._places: dict[tuple[BudgetSpec, ...], tuple[int, int | None]] = {}

    def arrange(
        self,
        labels: frozenset[str],
        rollouts: Collection[str],
        in_trial: Callable[[str], LabelsByRow],
    ) -> None:
        """Count by ``labels`` in ``rollouts``, the ids of the rollouts that count.

        ``in_trial`` returns the devices in trial of a rollout that was not counted before.
        """
        if not labels:
            self.counts.clear()
            self._in_trial.clear()
            self._places.clear()
            return
        if labels == self.counts.keys() and rollouts == self._in_trial.keys():
            return
        for gone in self._in_trial.keys() - set(rollouts):
            del self._in_trial[gone]
        for rollout in set(rollouts) - self._in_trial.keys():
            self._in_trial[rollout] = dict(in_trial(rollout))
        self.counts = {label: Counter() for label in labels}
        for rows in self._in_trial.values():
            for carried in rows.values():
                self._add(carried, 1)

    def in_use(self, label: str, value: str) -> int:
        """Number of devices in trial with this label value, over all rollouts that count."""
        counts = self.counts.get(label)
        return 0 if counts is None else counts[value]

    def full(self, specs: tuple[BudgetSpec, ...], labels: Mapping[str, str]) -> BudgetSpec | None:
        """The first of ``specs`` that is full for a device with these labels. None if none is."""
        for spec in specs:
            value = labels.get(spec.label)
            if value is not None and self.in_use(spec.label, value) >= spec.max_in_trial:
                return spec
        return None

    def places(self, specs: tuple[BudgetSpec, ...], fleet: Fleet) -> int | None:
        """Number of devices that ``specs`` allow in trial in the whole fleet. None if unlimited."""
        if not specs:
            return None
        version = fleet.facts_version
        found = self._places.get(specs)
        if found is None or found[0] != version:
            sets = fleet.labels_in_use()
            bounds = [_places(spec, sets) for spec in specs]
            known = [bound for bound in bounds if bound is not None]
            found = self._places[specs] = (version, min(known, default=None))
        return found[1]

    def begin(self, rollout: str, row: int, labels: Mapping[str, str]) -> None:
        """Count a device in trial or with a reservation. A second call has no effect."""
        rows = self._in_trial.get(rollout)
        if rows is None or row in rows:
            return
        rows[row] = labels
        self._add(labels, 1)

    def end(self, rollout: str, row: int) -> None:
        """Free the place of a device that is no longer in trial."""
        rows = self._in_trial.get(rollout)
        labels = None if rows is None else rows.pop(row, None)
        if labels is not None:
            self._add(labels, -1)

    def blocked(self, specs: tuple[BudgetSpec, ...], rows: Rows, fleet: Fleet) -> Mask:
        """True for each of ``rows`` for which one of ``specs`` is full."""
        mask = np.zeros(len(rows), np.bool_)
        if not specs or not len(rows):
            return mask
        numbers = fleet.label_ids[rows]
        table = np.zeros(fleet.label_set_count, np.bool_)
        for number in np.flatnonzero(np.bincount(numbers)).tolist():
            table[number] = self.full(specs, fleet.label_set(number)) is not None
        mask |= table[numbers]
        return mask

    def _add(self, labels: Mapping[str, str], places: int) -> None:
        for label, counts in self.counts.items():
            value = labels.get(label)
            if value is not None:
                counts[value] += places
                if not counts[value]:
                    del counts[value]


def _places(spec: BudgetSpec, sets: Sequence[Mapping[str, str]]) -> int | None:
    values = {labels.get(spec.label) for labels in sets}
    return None if None in values else len(values) * spec.max_in_trial
