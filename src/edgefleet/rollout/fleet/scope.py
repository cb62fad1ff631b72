"""The scope of a rollout: its eligible devices, and the devices inside its waves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgefleet.base.ids import mix64
from edgefleet.protocol.release import Variant
from edgefleet.rollout.fleet import cut
from edgefleet.rollout.fleet.answers import Answers
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.eligibility import (
    Misfit,
    all_too_old,
    misfit,
    too_old,
)
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.label_values import LabelValues
from edgefleet.rollout.fleet.memory_fit import Room
from edgefleet.rollout.fleet.selector import Selector, parse
from edgefleet.rollout.lifecycle.state import WaveState


@dataclass(frozen=True, slots=True)
class Part:
    """The devices of one wave: a selection (None selects all devices), cut at a threshold.

    A wave that has not opened has no devices. Rows from ``rows`` on enrolled too late for the wave.
    """

    labels: Answers | None
    threshold: int
    rows: int

    @property
    def is_whole(self) -> bool:
        return self.threshold >= cut.EVERYONE


Parts = tuple[Part, ...]


class Scope:
    """A selector, the model and the variants of the release, and the rollout's salt.

    A device is eligible if the selector matches it and the release fits it, also into the memory of
    ``room``. ``labels`` and ``kits`` are the label sets and the kits that are eligible: answers are
    cached by label set and by kit, so one device costs two reads.
    """

    def __init__(
        self,
        fleet: Fleet,
        selector: Selector,
        model: str,
        variants: Mapping[str, Variant],
        salt: int,
        *,
        room: Room,
        comparison: str = "",
    ) -> None:
        self.room = room
        self._comparison = comparison
        self._fleet = fleet
        self.selector = selector
        self._model = model
        self._variants = variants
        self._salt = salt
        self.labels = self._answers(selector)
        self._selections: dict[str, Answers] = {}
        self.kits = Answers(
            lambda number: misfit(fleet.kit(number), variants, comparison) is None,
            lambda: fleet.kit_count,
        )
        self._eligible: tuple[int, Mask, memoryview[bool]] | None = None
        self._members: tuple[int, Parts, Rows, Mask] | None = None
        self._ineligible: tuple[int, dict[str, int]] | None = None
        self._counts: tuple[int, npt.NDArray[np.int64]] | None = None

    def selected(self, row: int) -> bool:
        """True if the selector matches the labels of the device."""
        return self.labels[self._fleet.label_id(row)]

    def selects(self, row: int) -> bool:
        """True if the selector matches the device and the release fits its kit."""
        return self.labels[self._fleet.label_id(row)] and self.kits[self._fleet.kit_id(row)]

    def all_selected(self, rows: Rows) -> Mask:
        """``selects`` for each of ``rows``."""
        mask: Mask = self.labels.all()[self._fleet.label_ids[rows]]
        mask &= self.kits.all()[self._fleet.kit_ids[rows]]
        return mask

    def has_variant(self, profile: str) -> bool:
        """True if the release has a variant for the profile."""
        return profile in self._variants

    def misfit(self, row: int) -> Misfit | None:
        """The reason why the release does not fit the device. None if it fits."""
        if too_old(self._fleet.protocol(row)):
            return Misfit.AGENT_TOO_OLD
        if self._fleet.has_only_another(row, self._model):
            return Misfit.AGENT_ONE_MODEL
        found = misfit(self._fleet.kit(self._fleet.kit_id(row)), self._variants, self._comparison)
        return found or (None if self.room.fits(row) else Misfit.MEMORY_FULL)

    def eligible(self, row: int) -> bool:
        fleet, kept = self._fleet, self._eligible
        if kept is not None and kept[0] == fleet.facts_version:
            return kept[2][row]
        if not self.selects(row):
            return False
        if too_old(fleet.protocol(row)) or fleet.has_only_another(row, self._model):
            return False
        return not fleet.limits_memory or self.room.fits(row)

    def ineligible(self) -> dict[str, int]:
        """Number of selected devices that the release does not fit, by reason."""
        fleet = self._fleet
        if self._ineligible is None or self._ineligible[0] != fleet.facts_version:
            self._ineligible = (fleet.facts_version, self._count_misfits())
        return self._ineligible[1]

    def without_room(self) -> Rows:
        """The selected rows that have too little memory left, ascending."""
        fits = self.labels.all()[self._fleet.label_ids] & self.kits.all()[self._fleet.kit_ids]
        fits &= ~all_too_old(self._fleet.protocols)
        rows = np.flatnonzero(fits)
        rows = rows[~self._fleet.all_have_only_another(rows, self._model)]
        return rows[~self.room.all_fit(rows)]

    def label_values(self, key: str, values: Sequence[str]) -> LabelValues:
        """The devices of the fleet by their value of a label, or by their profile."""
        return LabelValues(self._fleet, key, values)

    def position(self, row: int) -> int:
        """The position of the device in this rollout: 64 bits."""
        return mix64(self._fleet.hash(row) ^ self._salt)

    def positions(self, rows: Rows) -> cut.Hashes:
        """The position of each of ``rows``."""
        return cut.positions(self._fleet.hashes[rows], self._salt)

    def part(self, wave: WaveState) -> Part:
        """The devices of a wave that has opened."""
        threshold = 0 if wave.threshold is None else int(wave.threshold, 16)
        return Part(self._selection(wave.selector), threshold, wave.rows or 0)

    def locate(self, row: int, parts: Parts) -> tuple[bool, int | None]:
        """Whether the device is eligible, and the place in ``parts`` of the first that has it.

        The place is None if the device is not eligible or in none of them.
        """
        is_eligible = self.eligible(row)
        return is_eligible, self.first(row, parts) if is_eligible else None

    def inside(self, row: int, parts: Parts) -> bool:
        """True if the device is in one of ``parts``. To be called for eligible devices only."""
        return self.first(row, parts) is not None

    def first(self, row: int, parts: Parts) -> int | None:
        """Index of the first of ``parts`` that contains the device. None if none does.

        To be called for eligible devices only.
        """
        position: int | None = None
        for place, part in enumerate(parts):
            if part.labels is not None and not part.labels[self._fleet.label_id(row)]:
                continue
            if part.threshold >= cut.EVERYONE:
                return place
            if row < part.rows:
                if position is None:
                    position = self.position(row)
                if position < part.threshold:
                    return place
        return None

    def eligible_mask(self) -> Mask:
        """``eligible`` for all rows, cached until a fact changes. Do not write to the result."""
        version = self._fleet.facts_version
        if self._eligible is None or self._eligible[0] != version:
            mask = self._ask_eligible(np.arange(len(self._fleet)))
            self._eligible = (version, mask, mask.data.cast("B").cast("?"))
        return self._eligible[1]

    def eligible_rows(self) -> Rows:
        return np.flatnonzero(self.eligible_mask())

    def all_eligible(self, rows: Rows) -> Mask:
        """``eligible`` for each of ``rows``."""
        kept = self._eligible
        if kept is not None and kept[0] == self._fleet.facts_version:
            return kept[1][rows]
        return self._ask_eligible(rows)

    def matching(self, rows: Rows, selector: str) -> Mask:
        """True for each of ``rows`` that the selector of a wave matches."""
        labels = self._selection(selector)
        if labels is None:
            return np.ones(len(rows), np.bool_)
        mask: Mask = labels.all()[self._fleet.label_ids[rows]]
        return mask

    def forget_rows(self) -> None:
        """Drop what is kept for each row. The next question computes it again."""
        self._eligible = self._members = self._ineligible = self._counts = None

    def count(self, eligible: Rows, parts: Parts) -> int:
        """Number of these eligible rows that are inside ``parts``."""
        return int(np.count_nonzero(self._all_inside(eligible, parts)))

    def counts(self, selector: str) -> tuple[int, int]:
        """Number of eligible devices, and how many of these the selector of a wave matches."""
        version = self._fleet.facts_version
        if self._counts is None or self._counts[0] != version:
            labels = self._fleet.label_ids[self.eligible_mask()]
            self._counts = (version, np.bincount(labels, minlength=self._fleet.label_set_count))
        by_set = self._counts[1]
        labels_of = self._selection(selector)
        every = int(by_set.sum())
        return every, every if labels_of is None else int(by_set[labels_of.all()].sum())

    def members(self, parts: Parts) -> Rows:
        """Eligible rows inside ``parts``, ascending. Cached until a fact of the fleet changes.

        Do not write to the result. The first call after a change costs about 10 ms for a million
        devices.
        """
        version = self._fleet.facts_version
        kept = self._members
        if kept is None or kept[0] != version or kept[1] != parts:
            rows, mask = self.eligible_rows(), self.eligible_mask()
            if not _is_everyone(parts):
                rows = rows[self._all_inside(rows, parts)]
                mask = np.zeros(len(mask), np.bool_)
                mask[rows] = True
            kept = self._members = (version, parts, rows, mask)
        return kept[2]

    def all_inside(self, rows: Rows, parts: Parts) -> Mask:
        """``eligible`` and ``inside`` for each of ``rows``."""
        kept = self._members
        if kept is not None and kept[0] == self._fleet.facts_version and kept[1] == parts:
            return kept[3][rows]
        return self.all_eligible(rows) & self._all_inside(rows, parts)

    def firsts(self, rows: Rows, parts: Parts) -> npt.NDArray[np.int16]:
        """``first`` for each of ``rows``. -1 for None, and for ineligible devices."""
        found = np.full(len(rows), -1, np.int16)
        left = np.flatnonzero(self.all_eligible(rows))
        for place, part in enumerate(parts):
            inside = self._all_inside(rows[left], (part,))
            found[left[inside]] = place
            left = left[~inside]
        return found

    def _all_inside(self, rows: Rows, parts: Parts) -> Mask:
        if _is_everyone(parts):
            return np.ones(len(rows), np.bool_)
        inside = np.zeros(len(rows), np.bool_)
        places: cut.Hashes | None = None
        for part in parts:
            if part.is_whole:
                mask = np.ones(len(rows), np.bool_)
            else:
                places = self.positions(rows) if places is None else places
                mask = (places < np.uint64(part.threshold)) & (rows < part.rows)
            if part.labels is not None:
                mask &= part.labels.all()[self._fleet.label_ids[rows]]
            inside |= mask
        return inside

    def _ask_eligible(self, rows: Rows) -> Mask:
        by_label, by_kit = self.labels.all(), self.kits.all()
        mask = np.ones(len(rows), np.bool_)
        if self._fleet.has_older_agents:
            mask &= ~all_too_old(self._fleet.protocols[rows])
            mask &= ~self._fleet.all_have_only_another(rows, self._model)
        if not by_label.all():
            mask &= by_label[self._fleet.label_ids[rows]]
        if not by_kit.all():
            mask &= by_kit[self._fleet.kit_ids[rows]]
        if self._fleet.limits_memory:
            mask &= self.room.all_fit(rows)
        return mask

    def _count_misfits(self) -> dict[str, int]:
        """Number of misfits by reason. Reads the columns of the fleet only if there can be any."""
        fleet, by_label, fits = self._fleet, self.labels.all(), self.kits.all()
        rows = np.arange(len(fleet))
        old = all_too_old(fleet.protocols)
        other = fleet.all_have_only_another(rows, self._model)
        full = ~self.room.all_fit(rows)
        if fits.all() and not old.any() and not other.any() and not full.any():
            return {}
        selected = by_label[fleet.label_ids]
        found: dict[str, int] = {}
        counts = np.bincount(fleet.kit_ids[selected & ~old & ~other], minlength=fleet.kit_count)
        for number, count in enumerate(counts.tolist()):
            kit = fleet.kit(number)
            reason = misfit(kit, self._variants, self._comparison) if count else None
            if reason is not None:
                found[reason.value] = found.get(reason.value, 0) + count
        for reason, mask in (
            (Misfit.AGENT_TOO_OLD, old),
            (Misfit.AGENT_ONE_MODEL, other & ~old),
            (Misfit.MEMORY_FULL, full & fits[fleet.kit_ids] & ~other & ~old),
        ):
            if count := int(np.count_nonzero(selected & mask)):
                found[reason.value] = count
        return found

    def _selection(self, selector: str) -> Answers | None:
        if not selector:
            return None
        if selector not in self._selections:
            self._selections[selector] = self._answers(parse(selector))
        return self._selections[selector]

    def _answers(self, selector: Selector) -> Answers:
        fleet = self._fleet
        return Answers(
            lambda number: fleet.matches(selector, number),
            lambda: fleet.label_set_count,
            lambda: fleet.all_matching(selector),
        )


def _is_everyone(parts: Parts) -> bool:
    return any(part.is_whole and part.labels is None for part in parts)


def reach(parts: Parts) -> Parts:
    """The same devices in fewer parts: a later cut of the same selection contains the earlier."""
    last = {id(part.labels): part for part in parts}
    everyone = last.get(id(None))
    if everyone is not None and everyone.is_whole:
        return (everyone,)
    return tuple(last.values())
