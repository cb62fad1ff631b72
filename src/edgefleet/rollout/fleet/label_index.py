"""An inverted index of label sets: which of them have a key, and which a value of it.

A selector is then answered by the sets that it names, not by all: with a serial number as a label,
there are as many sets as devices.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from edgefleet.rollout.fleet.columns import Mask
from edgefleet.rollout.fleet.selector import Operator, Requirement, Selector


class LabelIndex:
    """Label sets are numbered from 0 in the order of ``add``, and never change."""

    def __init__(self) -> None:
        self._count = 0
        self._by_value: dict[str, dict[str, int | list[int]]] = {}  # one number needs no list

    def add(self, labels: Mapping[str, str]) -> None:
        """The next label set."""
        for key, value in labels.items():
            by_value = self._by_value.setdefault(key, {})
            before = by_value.get(value)
            if before is None:
                by_value[value] = self._count
            elif isinstance(before, int):
                by_value[value] = [before, self._count]
            else:
                before.append(self._count)
        self._count += 1

    def matching(self, selector: Selector) -> Mask:
        """For each label set: whether ``selector`` matches it."""
        found: Mask = np.ones(self._count, np.bool_)
        for requirement in selector.requirements:
            found &= self._meeting(requirement)
        return found

    def _meeting(self, requirement: Requirement) -> Mask:
        by_value = self._by_value.get(requirement.key, {})
        match requirement.operator:
            case Operator.EXISTS:
                return self._having(by_value.values())
            case Operator.NOT_EXISTS:
                return ~self._having(by_value.values())
            case Operator.IN | Operator.NOT_IN:
                named = (by_value[value] for value in requirement.values if value in by_value)
                having = self._having(named)
                return having if requirement.operator is Operator.IN else ~having

    def _having(self, entries: Iterable[int | list[int]]) -> Mask:
        found: Mask = np.zeros(self._count, np.bool_)
        single = []
        for entry in entries:
            if isinstance(entry, int):
                single.append(entry)
            else:
                found[entry] = True
        found[single] = True
        return found
