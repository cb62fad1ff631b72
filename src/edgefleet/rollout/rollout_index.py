"""The few rollouts that can concern a device, whatever the number of rollouts.

A rollout concerns a device that its selector matches and its release fits, and a device that
reported to it. Labels and kit of a device decide the first, so the answer is kept by the pair of
label set and kit. A device whose labels or kit changed may have reported to rollouts that do not
select it any more. ``Fleet.moves`` has these devices, and each of them has an answer of its own.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.rollout.active import ActiveRollout
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.rollout.fleet.fleet import Fleet

Rollouts = tuple[ActiveRollout, ...]

_NONE: Final = DeviceStanding.NONE  # bound once: the look-up takes 0.2 us in Python 3.11
_KEPT: Final = 1_000  # answers of single devices, at least
_FEW: Final = 2  # so many rollouts are asked faster than the index


class RolloutIndex:
    """Some rollouts in an order, which each answer keeps.

    Label sets that the same rollouts select are one class, numbered from 1. A rollout that took its
    release back from a part of the devices concerns every device, as a part is named by labels of
    its own.
    """

    def __init__(self, fleet: Fleet, rollouts: Iterable[ActiveRollout]) -> None:
        self.rollouts: Rollouts = tuple(rollouts)
        self._wide = tuple(bool(active.taken) for active in self.rollouts)
        self._fleet = fleet
        self._class_of = array("I")  # by label set; 0: not known yet
        self._numbers: dict[tuple[int, ...], int] = {}  # places in ``rollouts`` -> class
        self._selecting: list[Rollouts] = [()]  # by class
        self._fitting: dict[tuple[int, int], Rollouts] = {}  # by class and kit
        self._moved: dict[int, tuple[int, Rollouts]] = {}  # row -> its last move, the answer

    def is_of(self, rollouts: Sequence[ActiveRollout]) -> bool:
        """True if the index has these rollouts, in this order, as they are now."""
        return len(rollouts) == len(self.rollouts) and all(
            mine is other and wide == bool(other.taken)
            for mine, other, wide in zip(self.rollouts, rollouts, self._wide, strict=True)
        )

    def of(self, row: int) -> Rollouts:
        """The rollouts that can concern the device. It may contain others."""
        if len(self.rollouts) <= _FEW:
            return self.rollouts
        fleet = self._fleet
        move = fleet.moves.get(row)
        if move is not None:
            return self._of_moved(row, move)
        kit_id = fleet.kit_id(row)
        key = (self._class(fleet.label_id(row)), kit_id)
        found = self._fitting.get(key)
        if found is None:
            found = tuple(
                active
                for active in self._selecting[key[0]]
                if active.taken or active.scope.kits[kit_id]
            )
            self._fitting[key] = found
        return found

    def parts(self, rows: Rows) -> Iterator[tuple[Rollouts, npt.NDArray[np.intp]]]:
        """``of`` for the ascending ``rows``, as ascending indices with equal answers."""
        everyone = np.arange(len(rows))
        if len(self.rollouts) <= _FEW or not len(rows):
            yield self.rollouts, everyone
            return
        if self._fleet.moves:
            moved = self._fleet.have_moved(rows)
            if moved.any():
                yield self.rollouts, np.flatnonzero(moved)
                everyone = np.flatnonzero(~moved)
        label_ids = self._fleet.label_ids[rows[everyone]]
        present = np.flatnonzero(np.bincount(label_ids)).tolist()
        if not present:
            return
        classes = np.zeros(present[-1] + 1, np.uint32)
        classes[present] = [self._class(number) for number in present]
        class_of = classes[label_ids]
        order = np.argsort(class_of, kind="stable")
        counts = np.bincount(class_of)
        for number, mine in enumerate(np.split(order, np.cumsum(counts)[:-1])):
            if len(mine):
                yield self._selecting[number], everyone[mine]

    def _class(self, label_id: int) -> int:
        known = self._class_of
        if label_id >= len(known):
            known.extend([0] * (self._fleet.label_set_count - len(known)))
        number = known[label_id]
        if not number:
            places = tuple(
                place
                for place, active in enumerate(self.rollouts)
                if self._wide[place] or active.scope.labels[label_id]
            )
            number = self._numbers.setdefault(places, len(self._selecting))
            if number == len(self._selecting):
                self._selecting.append(tuple(self.rollouts[place] for place in places))
            known[label_id] = number
        return number

    def _of_moved(self, row: int, move: int) -> Rollouts:
        known = self._moved.get(row)
        if known is None or known[0] != move:
            if len(self._moved) > _KEPT + 2 * len(self._fleet.moves):
                self._moved.clear()  # most of these devices are no exception any more
            found = tuple(
                active
                for active in self.rollouts
                if active.taken
                or active.scope.selects(row)
                or active.ledger.standing(row) is not _NONE
            )
            known = self._moved[row] = (move, found)
        return known[1]
