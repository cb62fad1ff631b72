"""The memory of a device for its models: whether one more release fits beside the others.

The others are the releases that the device *should* run, by the rollouts that were planned before.
The releases that a device runs at the moment do not count here, as reports would move the cut of a
wave: ``constraints.memory`` compares them when a release is offered.

A rollout that has not been rolled back keeps its room on each device that it selects and fits, also
before its wave opens and after the device failed it. An open rollout keeps the larger room of its
release and of the release before it, because the device may go back.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.version import has_one_model
from edgefleet.rollout.fleet.answers import Answers
from edgefleet.rollout.fleet.columns import Mask, Rows, gather
from edgefleet.rollout.fleet.fleet import Fleet, all_with_one_model

_DENSE: Final = 1 << 22  # most possible kinds of devices that are counted in a table


class Need(NamedTuple):
    """The memory of one device, in MiB, as a release needs it."""

    limit_mib: int  # the release may take this much
    taken_mib: int  # the other models that the device should run may take this much
    total_mib: int  # the device has this much for all its models. 0: it did not report it

    @property
    def fits(self) -> bool:
        """True if the release fits. A memory that the device did not report counts as fitting."""
        return not self.total_mib or self.taken_mib + self.limit_mib <= self.total_mib


@dataclass(frozen=True, slots=True)
class Tenant:
    """One rollout, as it keeps memory of devices.

    ``labels`` has the label sets that it selects, ``kits`` the kits that its release fits.
    """

    rollout: str
    model: str
    limits: Mapping[str, int]  # the memory limits of the release in MiB, by profile
    labels: Answers
    kits: Answers
    until: int | None = None  # rows from here on enrolled after its end. None: it has them, too
    keeps: bool = True  # False: it was rolled back
    is_completed: bool = False


class MemoryFit:
    """The memory that rollouts keep on devices. Call ``arrange`` after each change of one."""

    def __init__(self, fleet: Fleet, tenants: Callable[[], tuple[Tenant, ...]]) -> None:
        """``tenants`` returns the rollouts, oldest first."""
        self._fleet = fleet
        self._read = tenants
        self._is_read = False
        self._tenants: tuple[Tenant, ...] = ()
        self._table: tuple[int, _Table] | None = None

    def arrange(self) -> None:
        """Read the rollouts again. Eligibility may change if one of them did."""
        self._is_read = False
        if self._fleet.limits_memory:
            before = self._tenants
            if self._oldest_first() != before:
                self._fleet.facts_version += 1

    def taken(self, row: int, rollout: str | None, model: str) -> int:
        """The MiB that the other models of the device may take, for a rollout.

        None is a rollout that is not planned yet.
        """
        fleet = self._fleet
        if has_one_model(fleet.protocol(row)):
            return 0
        return _of_others(
            self._taken_by_model(fleet.kit_id(row), fleet.label_id(row), row, rollout), model
        )

    def all_needs(
        self, rows: Rows, rollout: str | None, model: str, limits: Mapping[str, int]
    ) -> tuple[tuple[Need, ...], npt.NDArray[np.uint32]]:
        """Some needs of a release, and for each of ``rows`` the place of its need among them."""
        version = self._fleet.facts_version
        tenants = self._oldest_first()
        if self._table is None or self._table[0] != version:
            self._table = (version, self._kinds(tenants))
        kinds, of_row = self._table[1]
        return tuple(self._need(kind, rollout, model, limits) for kind in kinds), gather(
            of_row, rows
        )

    def _need(
        self, kind: "_Kind", rollout: str | None, model: str, limits: Mapping[str, int]
    ) -> Need:
        kit = self._fleet.kit(kind.kit_id)
        taken = 0
        if not kind.one_model:
            taken = _of_others(self._taken_by_model(*kind[:3], rollout), model)
        return Need(limits.get(kit.profile, 0), taken, kit.models_memory_mib)

    def _oldest_first(self) -> tuple[Tenant, ...]:
        if not self._is_read:
            tenants, self._is_read = self._read(), True
            if tenants != self._tenants:
                self._tenants, self._table = tenants, None
        return self._tenants

    def _taken_by_model(
        self, kit_id: int, label_id: int, row: int, rollout: str | None
    ) -> dict[str, int]:
        """The MiB of each model on a device, by the rollouts that are older than ``rollout``."""
        kit = self._fleet.kit(kit_id)
        total = kit.models_memory_mib
        taken: dict[str, int] = {}
        for one in self._oldest_first() if total else ():
            if one.rollout == rollout:
                break
            if not one.keeps or not one.labels[label_id] or not one.kits[kit_id]:
                continue
            if one.until is not None and row >= one.until:
                continue
            limit = one.limits.get(kit.profile, 0)
            if _of_others(taken, one.model) + limit <= total:
                before = 0 if one.is_completed else taken.get(one.model, 0)
                taken[one.model] = max(before, limit)
        return taken

    def _kinds(self, tenants: tuple[Tenant, ...]) -> "_Table":
        """The kinds of devices that the rollouts tell apart, each with its devices."""
        fleet = self._fleet
        ends = sorted({one.until for one in tenants if one.until is not None})
        labels = np.stack(
            [np.zeros(fleet.label_set_count, np.bool_), *(one.labels.all() for one in tenants)]
        )
        _, first, of_label = np.unique(labels, axis=1, return_index=True, return_inverse=True)
        of_label = of_label.reshape(-1)
        parts = len(ends) + 1
        possible = fleet.kit_count * len(first) * parts * 2
        key = np.zeros(len(fleet), np.int64)
        for end in ends:
            key[end:] += 1
        by_kit = np.arange(fleet.kit_count) * (len(first) * parts)
        key += by_kit[fleet.kit_ids]
        if len(first) > 1:
            key += (of_label * parts)[fleet.label_ids]
        key *= 2
        key += all_with_one_model(fleet.protocols)
        if possible <= _DENSE:
            present = np.flatnonzero(np.bincount(key, minlength=possible))
            places = np.zeros(possible, np.uint32)
            places[present] = np.arange(len(present))
            of_row = places[key]
        else:
            present, inverse = np.unique(key, return_inverse=True)
            of_row = inverse.astype(np.uint32)
        kinds: list[_Kind] = []
        for number in present.tolist():
            rest, one_model = divmod(number, 2)
            rest, segment = divmod(rest, parts)
            kit_id, label_class = divmod(rest, len(first))
            row = ends[segment - 1] if segment else 0
            kinds.append(_Kind(kit_id, int(first[label_class]), row, bool(one_model)))
        return _Table(tuple(kinds), of_row)


class Room:
    """The question of one rollout to ``MemoryFit``. ``rollout`` is None before it is planned."""

    def __init__(
        self,
        fit: MemoryFit,
        fleet: Fleet,
        rollout: str | None,
        model: str,
        limits: Mapping[str, int],
    ) -> None:
        self._fit = fit
        self._fleet = fleet
        self._rollout = rollout
        self._model = model
        self._limits = limits

    def need(self, row: int) -> Need:
        """The need of the release on the device."""
        kit = self._fleet.kit(self._fleet.kit_id(row))
        taken = self._fit.taken(row, self._rollout, self._model)
        return Need(self._limits.get(kit.profile, 0), taken, kit.models_memory_mib)

    def fits(self, row: int) -> bool:
        """True if the release fits beside the other models that the device should run."""
        return not self._fleet.limits_memory or self.need(row).fits

    def all_fit(self, rows: Rows) -> Mask:
        """``fits`` for each of ``rows``."""
        if not self._fleet.limits_memory:
            return np.ones(len(rows), np.bool_)
        needs, places = self._all(rows)
        fits: Mask = np.array([need.fits for need in needs], np.bool_)[places]
        return fits

    def needs(self, rows: Rows) -> tuple[tuple[Need, int], ...]:
        """The distinct needs on ``rows`` with their numbers of devices, most devices first."""
        needs, places = self._all(rows)
        counts: Counter[Need] = Counter()
        for need, count in zip(needs, np.bincount(places, minlength=len(needs)), strict=True):
            counts[need] += int(count)
        return tuple((need, count) for need, count in counts.most_common() if count)

    def _all(self, rows: Rows) -> tuple[tuple[Need, ...], npt.NDArray[np.uint32]]:
        return self._fit.all_needs(rows, self._rollout, self._model, self._limits)


class _Kind(NamedTuple):
    """Devices that no rollout tells apart, by one of them."""

    kit_id: int
    label_id: int
    row: int
    one_model: bool


class _Table(NamedTuple):
    kinds: tuple[_Kind, ...]
    of_row: npt.NDArray[np.uint32]  # the place in ``kinds`` of each device


def _of_others(taken: Mapping[str, int], model: str) -> int:
    return sum(taken.values()) - taken.get(model, 0)
