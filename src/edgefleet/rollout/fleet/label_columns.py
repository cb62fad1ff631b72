"""The label sets by key, so that a selector is evaluated with a few array operations.

A column has the address of the value in each label set, 0 without the key. Values are interned, and
label sets are never dropped, so two equal values have one address for ever. A column is made when a
selector first names its key: devices cannot make columns.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from sys import intern

import numpy as np
import numpy.typing as npt

from edgefleet.rollout.fleet.columns import Mask
from edgefleet.rollout.fleet.selector import Operator, Requirement, Selector
from edgefleet.rollout.limits import LABEL_COLUMNS


class LabelColumns:
    """``sets`` grows; its values are interned."""

    def __init__(self, sets: Sequence[Mapping[str, str]]) -> None:
        self._sets = sets
        self._columns: OrderedDict[str, npt.NDArray[np.uint64]] = OrderedDict()

    def matching(self, selector: Selector) -> Mask:
        """One truth value for each label set: whether the selector matches it."""
        mask = np.ones(len(self._sets), np.bool_)
        for requirement in selector.requirements:
            mask &= self._meeting(requirement)
        return mask

    def _meeting(self, requirement: Requirement) -> Mask:
        column = self._column(requirement.key)
        match requirement.operator:
            case Operator.IN:
                return _is_one_of(column, requirement)
            case Operator.NOT_IN:
                return ~_is_one_of(column, requirement)
            case Operator.EXISTS:
                return np.not_equal(column, 0)
            case Operator.NOT_EXISTS:
                return np.equal(column, 0)

    def _column(self, key: str) -> npt.NDArray[np.uint64]:
        column = self._columns.get(key)
        known = 0 if column is None else len(column)
        if column is None or known < len(self._sets):
            new = np.fromiter(
                (
                    0 if (value := labels.get(key)) is None else id(value)
                    for labels in self._sets[known:]
                ),
                np.uint64,
                len(self._sets) - known,
            )
            column = new if column is None else np.concatenate([column, new])
            self._columns[key] = column
        self._columns.move_to_end(key)
        while len(self._columns) > LABEL_COLUMNS:
            self._columns.popitem(last=False)
        return column


def _is_one_of(column: npt.NDArray[np.uint64], requirement: Requirement) -> Mask:
    values = [intern(value) for value in requirement.values]  # kept until they are compared
    mask = np.zeros(len(column), np.bool_)
    for value in values:
        mask |= column == np.uint64(id(value))
    return mask
