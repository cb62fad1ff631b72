"""Devices on which releases go wrong again and again: after two they are held for a person.

A setback is one rollout of a model after which the device went back, by itself or recalled.
"""

from collections import Counter
from typing import Final

import numpy as np

from edgefleet.rollout.fleet.columns import Rows

TOO_MANY: Final = 2


class Quarantine:
    """Counted from what devices reported, less what an operator let pass."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[int]] = {}  # model -> row -> setbacks
        self._let_pass: dict[tuple[str, int], int] = {}
        self._rows: dict[str, Rows] = {}

    def add(self, model: str, row: int) -> None:
        """One more rollout went wrong on the device."""
        self._counts.setdefault(model, Counter())[row] += 1
        self._rows.pop(model, None)

    def count(self, model: str, row: int) -> int:
        found = self._counts.get(model)
        return 0 if found is None else found[row]

    def let_pass(self, model: str, row: int, setbacks: int) -> None:
        """An operator released the device when it had so many."""
        self._let_pass[model, row] = setbacks
        self._rows.pop(model, None)

    def held(self, model: str, row: int) -> bool:
        """True until a person has looked at the device."""
        counts = self._counts.get(model)
        if counts is None:
            return False
        count = counts[row]
        return count >= TOO_MANY and count - self._let_pass.get((model, row), 0) >= TOO_MANY

    def rows(self, model: str) -> Rows:
        """Rows that are held, ascending."""
        if model not in self._rows:
            held = sorted(row for row in self._counts.get(model, ()) if self.held(model, row))
            self._rows[model] = np.array(held, np.int64)
        return self._rows[model]

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self._counts))
