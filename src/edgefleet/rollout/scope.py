"""Which devices a rollout is about, and which of them lie inside a wave."""

import numpy as np

from edgefleet.base.ids import mix64
from edgefleet.rollout import cut
from edgefleet.rollout.fleet import Fleet, Mask, Rows
from edgefleet.rollout.selector import Selector
from edgefleet.rollout.state import WaveState


class Scope:
    """A selector, the profiles that the release has a variant for, and the rollout's salt.

    Eligible is who is selected and has a variant. Answers are kept by label set and by profile, so
    that one device costs two look-ups.
    """

    def __init__(
        self, fleet: Fleet, selector: Selector, profiles: frozenset[str], salt: int
    ) -> None:
        self._fleet = fleet
        self.selector = selector
        self._profiles = profiles
        self._salt = salt
        self._label_ok = bytearray()
        self._profile_ok = bytearray()
        self._members: tuple[tuple[int, int, int], Rows] | None = None

    def selected(self, row: int) -> bool:
        """True when the selector matches its labels."""
        number = self._fleet.label_id(row)
        if number >= len(self._label_ok):
            self._learn()
        return self._label_ok[number] != 0

    def has_variant(self, row: int) -> bool:
        """True when the release has a variant for its profile."""
        number = self._fleet.profile_id(row)
        if number >= len(self._profile_ok):
            self._learn()
        return self._profile_ok[number] != 0

    def eligible(self, row: int) -> bool:
        return self.selected(row) and self.has_variant(row)

    def position(self, row: int) -> int:
        """Where the device lies in this rollout: 64 bits."""
        return mix64(self._fleet.hash(row) ^ self._salt)

    def inside(self, row: int, wave: WaveState) -> bool:
        """Is it in the wave? Call it for eligible devices."""
        threshold, rows = _bounds(wave)
        if threshold >= cut.EVERYONE:
            return True
        return row < rows and self.position(row) < threshold

    def below(self, row: int, wave: WaveState) -> bool:
        """True when its position lies below the threshold, whenever it enrolled."""
        threshold, _ = _bounds(wave)
        return threshold >= cut.EVERYONE or self.position(row) < threshold

    def eligible_mask(self) -> Mask:
        """One truth value a row."""
        return self.all_eligible(np.arange(len(self._fleet)))

    def eligible_rows(self) -> Rows:
        return np.flatnonzero(self.eligible_mask())

    def all_eligible(self, rows: Rows) -> Mask:
        """``eligible`` for many rows at once."""
        by_label, by_profile = self._answers()
        mask = np.ones(len(rows), np.bool_)
        if not by_label.all():
            mask &= by_label[self._fleet.label_ids[rows]]
        if not by_profile.all():
            mask &= by_profile[self._fleet.profile_ids[rows]]
        return mask

    def cut(self, percent: float, *, floor: int = 0) -> cut.Cut:
        """Cut the devices that are eligible now."""
        hashes = self._fleet.hashes[self.eligible_mask()]
        return cut.cut(cut.positions(hashes, self._salt), percent, floor=floor)

    def members(self, wave: WaveState) -> Rows:
        """Eligible rows inside the wave, ascending; kept until the fleet's facts change."""
        key = (self._fleet.facts_version, *_bounds(wave))
        if self._members is None or self._members[0] != key:
            every = np.arange(len(self._fleet))
            self._members = (key, every[self.all_inside(every, wave)])
        return self._members[1]

    def all_below(self, rows: Rows, wave: WaveState) -> Mask:
        """``eligible`` and ``below`` for many rows at once."""
        threshold, _ = _bounds(wave)
        mask = self.all_eligible(rows)
        if threshold < cut.EVERYONE:
            places = cut.positions(self._fleet.hashes[rows], self._salt)
            mask &= places < np.uint64(threshold)
        return mask

    def all_inside(self, rows: Rows, wave: WaveState) -> Mask:
        """``eligible`` and ``inside`` for many rows at once."""
        threshold, enrolled = _bounds(wave)
        mask = self.all_below(rows, wave)
        if threshold < cut.EVERYONE:
            mask &= rows < enrolled
        return mask

    def _answers(self) -> tuple[Mask, Mask]:
        """By label set and by profile: whether that much of it is eligible."""
        self._learn()
        return (
            np.frombuffer(bytes(self._label_ok), np.bool_),
            np.frombuffer(bytes(self._profile_ok), np.bool_),
        )

    def _learn(self) -> None:
        """Judge the label sets and profiles that came up since."""
        fleet = self._fleet
        for number in range(len(self._label_ok), fleet.label_set_count):
            self._label_ok.append(self.selector.matches(fleet.label_set(number)))
        for number in range(len(self._profile_ok), fleet.profile_count):
            self._profile_ok.append(fleet.profile_name(number) in self._profiles)


def _bounds(wave: WaveState) -> tuple[int, int]:
    """(threshold, rows) of a wave; nobody is inside one that never opened."""
    if wave.threshold is None or wave.rows is None:
        return 0, 0
    return int(wave.threshold, 16), wave.rows
