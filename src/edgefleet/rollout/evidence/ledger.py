"""The ledger of one rollout: per device a set of report bits, and the standing that they give.

A report sets a bit, and the standing is a function of the bits only. So a repeated report changes
nothing, and the counts do not depend on the order of the reports. A start that was withdrawn before
the switch sets no bit: the highest started attempt is compared with the highest withdrawn attempt,
and the start counts if its attempt is higher. A maximum does not depend on the order either.
"""

from collections.abc import Callable, Collection
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Outcome, OutcomeKind, WrongBytes
from edgefleet.protocol.reasons import reason_text
from edgefleet.rollout.evidence.activations import Activations, Course
from edgefleet.rollout.evidence.ledger_page import (
    LedgerPage,
    SealedColumns,
    column,
    decode_page,
)
from edgefleet.rollout.evidence.reasons import Reasons, has_words
from edgefleet.rollout.fleet.columns import Mask, Rows, gather, longer


class DeviceStanding(IntEnum):
    """The standing of a device in a rollout. The highest value that a report gave counts."""

    NONE = 0
    DEFERRED = 1
    TRIAL = 2
    HEALTHY = 3
    REFUSED = 4
    REVERTED = 5
    FAILED = 6  # also after the device reverted


EXCLUDED: Final = frozenset(
    {DeviceStanding.REFUSED, DeviceStanding.REVERTED, DeviceStanding.FAILED}
)
"""Devices with such a standing are not offered the release again."""
AT_FAULT: Final = EXCLUDED - {DeviceStanding.REVERTED}
"""The same after a revert by a person: it counts as a failure of neither release nor device."""

_BIT: Final = {
    OutcomeKind.DEFERRED: 1,
    OutcomeKind.TRIAL_STARTED: 2,
    OutcomeKind.CONFIRMED: 4,
    OutcomeKind.REFUSED: 8,
    OutcomeKind.REVERTED: 16,
    OutcomeKind.TRIAL_FAILED: 32,
}
_STARTED: Final = _BIT[OutcomeKind.TRIAL_STARTED]
_EXPOSED_BITS: Final = 2 | 4 | 16 | 32

# Bound once for speed: in Python 3.11, reading an enum member from its class costs 0.2 us.
_TRIAL_STARTED: Final = OutcomeKind.TRIAL_STARTED
_WITHDRAWN: Final = OutcomeKind.WITHDRAWN
_DEFERRED: Final = OutcomeKind.DEFERRED
_NONE: Final = DeviceStanding.NONE
_HEALTHY: Final = DeviceStanding.HEALTHY
_FAILED: Final = DeviceStanding.FAILED
_REVERTED: Final = DeviceStanding.REVERTED


def standing_of(bits: int) -> DeviceStanding:
    """The standing for a set of report bits: that of the highest bit."""
    return DeviceStanding(bits.bit_length())


_ALL: Final = tuple(DeviceStanding)
_STANDINGS: Final = tuple(standing_of(bits) for bits in range(64))
_STANDING_OF: Final = np.array(_STANDINGS, np.uint8)


def _words(outcome: Outcome) -> str:
    """The reason of an outcome, with the words of the device."""
    detail = outcome.detail.rstrip(". ")
    return f"{reason_text(outcome.reason)} ({detail})" if detail else reason_text(outcome.reason)


class Ledger:
    """Fourteen bytes per device of the fleet, and counts that are updated with each report.

    The ledger of a finished rollout may be sealed: it has five bytes and its packed page for each
    device that reported, until a question or a report needs the columns again.
    """

    def __init__(self, waves: int, course: Course) -> None:
        self._activations = Activations(course)
        self._sealed: SealedColumns | None = None  # None while the columns are there
        self._read_at: memoryview[int] | SealedColumns  # the column of standings, to be read only
        self._healthy_since = (0, 0)  # the key of the last episode, healthy devices since
        self._bits = np.zeros(0, np.uint8)
        self._standing = np.zeros(0, np.uint8)
        self._started = np.zeros(0, np.uint32)  # the highest started attempt
        self._wave = np.zeros(0, np.uint8)  # 1 + the wave in which the device counts, 0 for none
        self._withdrawn: dict[int, int] = {}  # row -> the highest withdrawn attempt
        self._exposed_by_wave = [0] * waves
        self.reasons = Reasons()
        self.deferrals: dict[int, str] = {}  # the last reason of a device to defer, in its words
        self.wrong_bytes: dict[int, WrongBytes] = {}  # the last that a device deferred for
        self.counts = [0] * len(DeviceStanding)  # by standing; the entry of NONE has no meaning
        self.exposed = 0  # devices that ever activated the release
        self.version = 0  # grows with every report that changes a bit
        self.reports = 0  # grows with every report, also with one that changes nothing
        self._show()

    def record(
        self, row: int, outcome: Outcome, wave: int | None, at: float | None = None
    ) -> tuple[DeviceStanding, DeviceStanding] | None:
        """Record a report. Returns the standings before and after it. None if it changes nothing.

        ``wave`` is the index of the first wave that contains the device. None if no wave does.
        ``at`` is the time of receipt. None for the time of the last start before it.
        """
        if self._sealed is not None:
            self._unseal()
        self.reports += 1
        if row >= len(self._bits_at):
            self._grow(row + 1)
        before = self._bits_at[row]
        after = self._with(row, before, outcome, at)
        if has_words(outcome):
            self.reasons.add(row, outcome)
        elif outcome.kind is _DEFERRED:
            self.deferrals[row] = _words(outcome)
            if outcome.wrong_bytes is not None:
                self.wrong_bytes[row] = outcome.wrong_bytes
        if after == before:
            return None
        self._bits_at[row] = after
        self._standing_at[row] = standing = after.bit_length()
        self.counts[before.bit_length()] -= 1
        self.counts[standing] += 1
        was_exposed = before & _EXPOSED_BITS
        if after & _EXPOSED_BITS:
            if not was_exposed:
                self._expose(row, wave, at)
        elif was_exposed:
            self._unexpose(row)
        if self._healthy_since[0]:
            self._recount(row, before.bit_length(), standing)
        self.version += 1
        return _ALL[before.bit_length()], _ALL[standing]

    def record_all(
        self,
        rows: Rows,
        outcome: Outcome,
        waves: npt.NDArray[np.int16],
        at: float | None = None,
    ) -> npt.NDArray[np.bool_]:
        """``record`` for many devices with the same report. True for each row that changed.

        ``rows`` ascend. ``waves`` has the wave of each row, -1 for none.
        """
        self._unseal()
        self.reports += 1
        self._make_room(rows)
        starts = outcome.kind is _TRIAL_STARTED
        bits = self._bits[rows]
        began = (bits & _EXPOSED_BITS) != 0
        again = bool((began if starts else began & (bits & _STARTED == 0)).any())
        if again or outcome.kind is _WITHDRAWN or (starts and self._withdrawn):
            each = zip(rows.tolist(), waves.tolist(), strict=True)
            new_bits = (
                self.record(row, outcome, None if wave < 0 else wave, at) is not None
                for row, wave in each
            )
            return np.fromiter(new_bits, np.bool_, len(rows))
        before = self._bits[rows]
        if starts:
            self._started[rows] = np.maximum(self._started[rows], outcome.attempt)
        after = before | np.uint8(_BIT[outcome.kind])
        new: npt.NDArray[np.bool_] = after != before
        if new.any():
            self._record_new(rows[new], before[new], after[new], waves[new], at)
        if has_words(outcome):
            for row in rows.tolist():
                self.reasons.add(row, outcome)
        elif outcome.kind is _DEFERRED:
            self.deferrals.update(dict.fromkeys(rows.tolist(), _words(outcome)))
            if outcome.wrong_bytes is not None:
                self.wrong_bytes.update(dict.fromkeys(rows.tolist(), outcome.wrong_bytes))
        return new

    def forget(self, row: int) -> DeviceStanding:
        """Drop all reports of a device. Returns its standing before."""
        before = self.standing(row)
        if self._sealed is not None:
            if not self._sealed.has(row):
                return before
            self._unseal()
        if row >= len(self._bits_at) or not (self._bits_at[row] or self._started_at[row]):
            return before
        if self._bits_at[row] & _EXPOSED_BITS:
            self._unexpose(row)
        self.counts[before] -= 1
        self.counts[_NONE] += 1
        self._bits_at[row] = self._standing_at[row] = self._started_at[row] = 0
        self._withdrawn.pop(row, None)
        self.deferrals.pop(row, None)
        self.wrong_bytes.pop(row, None)
        self.reasons.forget(row)
        self._healthy_since = (0, 0)
        self.version += 1
        self.reports += 1
        return before

    @property
    def activations(self) -> Activations:
        """The order in which the devices began."""
        if self._sealed is not None:
            self._unseal()
        return self._activations

    # The finished rollout.

    def page(self) -> LedgerPage:
        """The whole ledger as a page, for ``load``."""
        if self._sealed is not None:
            return decode_page(self._sealed.packed)
        rows = np.flatnonzero(self._bits | (self._started != 0))
        return LedgerPage(
            rows=rows.astype("<u4").tobytes(),
            bits=self._bits[rows].tobytes(),
            started=self._started[rows].astype("<u4").tobytes(),
            waves=self._wave[rows].tobytes(),
            keys=self._activations.keys(rows).astype("<u4").tobytes(),
            withdrawn=dict(self._withdrawn),
            reasons=self.reasons.page(),
            deferrals=dict(self.deferrals),
            wrong_bytes=dict(self.wrong_bytes),
        )

    def load(self, page: LedgerPage, packed: bytes) -> None:
        """Replace an empty ledger by that of a page, and seal it. ``packed`` is the page.

        Raises ValueError if a wave of the page is not in the plan.
        """
        bits, waves = column(page.bits, np.uint8), column(page.waves, np.uint8)
        exposed, by_wave = (bits & _EXPOSED_BITS) != 0, np.bincount(waves).tolist()
        if len(by_wave) > len(self._exposed_by_wave) + 1 or bits.max(initial=0) >= len(_STANDINGS):
            msg = "the page of a ledger has waves or reports that the rollout has not"
            raise ValueError(msg)
        for wave, count in enumerate(by_wave[1:]):
            self._exposed_by_wave[wave] = count
        self.exposed = int(np.count_nonzero(exposed))
        counts = np.bincount(_STANDING_OF[bits], minlength=len(DeviceStanding))
        self.counts = [0 if one is _NONE else int(counts[one]) for one in DeviceStanding]
        self.counts[_NONE] = -sum(self.counts)  # as each report moves a device out of NONE
        self.reasons.load(page.reasons)
        self.deferrals = dict(page.deferrals)
        self.wrong_bytes = dict(page.wrong_bytes)
        self.version += 1
        self.reports += 1
        self._become_sealed(SealedColumns(column(page.rows, np.uint32), bits, _STANDING_OF, packed))

    def seal(self, packed: bytes) -> None:
        """Drop the columns. ``packed`` is the page of the ledger as it is now."""
        if self._sealed is None:
            rows = np.flatnonzero(self._bits | (self._started != 0))
            bits = self._bits[rows]
            sealed = SealedColumns(rows.astype(np.uint32), bits, _STANDING_OF, packed)
            self._become_sealed(sealed)

    def _become_sealed(self, sealed: SealedColumns) -> None:
        self._bits = self._standing = self._wave = np.zeros(0, np.uint8)
        self._started = np.zeros(0, np.uint32)
        self._withdrawn = {}
        self._activations = Activations(self._activations.course)
        self._healthy_since = (0, 0)
        self._show()
        self._sealed = sealed
        self._read_at = sealed

    def _unseal(self) -> None:
        """Make the columns again."""
        if self._sealed is None:
            return
        page, self._sealed = decode_page(self._sealed.packed), None
        self._withdrawn = dict(page.withdrawn)
        rows = column(page.rows, np.uint32)
        self._grow(int(rows[-1]) + 1 if len(rows) else 0)
        self._bits[rows] = bits = column(page.bits, np.uint8)
        self._standing[rows] = _STANDING_OF[bits]
        self._started[rows] = column(page.started, np.uint32)
        self._wave[rows] = column(page.waves, np.uint8)
        self._activations.load(rows, column(page.keys, np.uint32))

    def standing(self, row: int) -> DeviceStanding:
        try:
            return _ALL[self._read_at[row]]
        except IndexError:
            return _NONE

    def count(self, standing: DeviceStanding) -> int:
        """Number of devices with this standing. 0 for NONE, because only reports are counted."""
        return self.counts[standing] if standing else 0

    def has_any(self, standings: Collection[DeviceStanding]) -> bool:
        """True if a device has one of these standings, without NONE."""
        return any(self.counts[standing] for standing in standings)

    def exposed_up_to(self, wave: int) -> int:
        """Number of devices in waves up to ``wave`` that ever activated the release."""
        return sum(self._exposed_by_wave[: wave + 1])

    def standings(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """The standing of each of ``rows``, which must ascend."""
        if self._sealed is not None:
            return self._sealed.at(rows)
        self._make_room(rows)
        found = gather(self._standing, rows)
        return found if found.base is None else found.copy()

    def have(self, rows: Rows, standings: Collection[DeviceStanding]) -> npt.NDArray[np.bool_]:
        """True for each of the ascending ``rows`` that has one of these standings."""
        wanted = np.array([standing in standings for standing in DeviceStanding])
        found: npt.NDArray[np.bool_] = wanted[self.standings(rows)]
        return found

    def rows(self, *standings: DeviceStanding) -> Rows:
        """Ascending rows of the devices with one of these standings, without NONE."""
        if not any(self.count(standing) for standing in standings):
            return np.zeros(0, np.int64)
        if self._sealed is not None:
            return self._sealed.rows_with(np.isin(self._sealed.standings, standings))
        found = self._standing == standings[0]
        for standing in standings[1:]:
            found |= self._standing == standing
        return np.flatnonzero(found)

    def newest_first(self, rows: Rows) -> Rows:
        """``rows`` sorted by the time at which they began, the last one first."""
        if not len(rows):
            return rows
        self._unseal()
        if int(rows.max()) >= len(self._bits):
            self._grow(int(rows.max()) + 1)
        return rows[np.argsort(-self.activations.keys(rows).astype(np.int64), kind="stable")]

    def began_between(
        self, rows: Rows, since: float | None, until: float | None
    ) -> npt.NDArray[np.bool_]:
        """True for each of the ascending ``rows`` that began between two times.

        None: at any time before or after.
        """
        if not len(rows):
            return np.zeros(0, np.bool_)
        self._unseal()
        self._make_room(rows)
        return self.activations.are_between(rows, since, until)

    @property
    def healthy_since_episode(self) -> int:
        """Number of healthy devices that began in the last episode. All before the first one."""
        key = self.activations.episode_key
        if not key:
            return self.counts[_HEALTHY]
        if self._healthy_since[0] != key:
            recent = self.activations.keys(self.rows(_HEALTHY)) >= key
            self._healthy_since = (key, int(np.count_nonzero(recent)))
        return self._healthy_since[1]

    def lost(self, dark: Rows, now: float) -> Rows:
        """The devices in trial among ``dark``, ascending, that began before the last pause."""
        dark = dark[self.standings(dark) == DeviceStanding.TRIAL] if len(dark) else dark
        if not len(dark) or self.activations.is_paused(now):
            return dark
        return dark[self.activations.keys(dark) < self.activations.episode_key]

    def failures_in_order(self, silent: Rows, are_out: Callable[[Rows], Mask]) -> list[bool]:
        """For each device that activated the release, in that order: whether it failed.

        ``silent`` devices in trial count as failed. Left out are devices that an operator reverted,
        and those for which ``are_out`` is true.
        """
        self._unseal()
        failed = self._standing == _FAILED
        failed[silent[silent < len(failed)]] = True
        began = (self._bits & _EXPOSED_BITS) != 0
        rows = np.flatnonzero(began & (self._standing != _REVERTED))
        rows = rows[~are_out(rows)]
        order = np.argsort(self.activations.keys(rows), kind="stable")
        found: list[bool] = failed[rows[order]].tolist()
        return found

    @property
    def reported_rows(self) -> Rows:
        """Ascending rows of the devices that have a standing."""
        if self._sealed is not None:
            return self._sealed.rows_with(self._sealed.standings != _NONE)
        return np.flatnonzero(self._standing)

    @property
    def begun_rows(self) -> Rows:
        """Ascending rows of the devices that ever activated the release."""
        if self._sealed is not None:
            return self._sealed.rows_with((self._sealed.bits & _EXPOSED_BITS) != 0)
        return np.flatnonzero(self._bits & _EXPOSED_BITS)

    def exposed_mask(self, rows: int) -> npt.NDArray[np.bool_]:
        """True for each of the first ``rows`` rows that ever activated the release."""
        if self._sealed is not None:
            return self._sealed.mask(_EXPOSED_BITS, rows)
        if rows > len(self._bits):
            self._grow(rows)
        exposed: npt.NDArray[np.bool_] = (self._bits[:rows] & _EXPOSED_BITS) != 0
        return exposed

    def _with(self, row: int, bits: int, outcome: Outcome, at: float | None) -> int:
        """The bits of the device after this report."""
        kind, attempt = outcome.kind, outcome.attempt
        if kind is _TRIAL_STARTED:
            started = self._started_at[row]
            if bits & _EXPOSED_BITS:
                self._began_again(row, bits, outcome, at)
            if attempt > started:
                self._started_at[row] = started = attempt
            return bits | _STARTED if started > self._withdrawn.get(row, -1) else bits
        if kind is _WITHDRAWN:
            self._withdrawn[row] = max(self._withdrawn.get(row, -1), attempt)
            return bits if self._started_at[row] > attempt else bits & ~_STARTED
        if bits & _EXPOSED_BITS and not bits & _STARTED and _BIT[kind] & _EXPOSED_BITS:
            self._began_again(row, bits, outcome, at)
        return bits | _BIT[kind]

    def _began_again(self, row: int, bits: int, outcome: Outcome, at: float | None) -> None:
        """A report of a device that began already. It began with the start of its last attempt.

        Without a report of a start, it began with its first report of another kind.
        """
        if at is None:
            return
        is_first = is_start = outcome.kind is _TRIAL_STARTED
        if is_start:
            attempt, started = outcome.attempt, self._started_at[row]
            if attempt < started or attempt <= self._withdrawn.get(row, -1):
                return
            is_first = attempt > started or not bits & _STARTED
        if is_first or self._activations.key(at) < self._activations.key_of(row):
            self._healthy_since = (0, 0)
            self._activations.move(row, at)

    def _record_new(
        self,
        rows: Rows,
        before: npt.NDArray[np.uint8],
        after: npt.NDArray[np.uint8],
        waves: npt.NDArray[np.int16],
        at: float | None,
    ) -> None:
        """Store new bits of many devices. No device may lose a bit."""
        old, new = _STANDING_OF[before], _STANDING_OF[after]
        self._bits[rows] = after
        self._standing[rows] = new
        changed = np.bincount(new, minlength=len(DeviceStanding))
        changed -= np.bincount(old, minlength=len(DeviceStanding))
        for standing in DeviceStanding:
            if standing is not _NONE:
                self.counts[standing] += int(changed[standing])
        fresh = (after & _EXPOSED_BITS != 0) & (before & _EXPOSED_BITS == 0)
        exposed, inside = rows[fresh], waves[fresh]
        self.exposed += len(exposed)
        self._activations.begin_all(exposed, at)
        self._wave[exposed] = inside + 1
        for wave, count in enumerate(np.bincount(inside[inside >= 0]).tolist()):
            self._exposed_by_wave[wave] += count
        self.version += len(rows)
        self._healthy_since = (0, 0)

    def _expose(self, row: int, wave: int | None, at: float | None) -> None:
        self.exposed += 1
        self._activations.begin(row, at)
        if wave is not None:
            self._exposed_by_wave[wave] += 1
            self._wave_at[row] = wave + 1

    def _unexpose(self, row: int) -> None:
        self.exposed -= 1
        self._activations.end(row)
        wave = self._wave_at[row]
        if wave:
            self._exposed_by_wave[wave - 1] -= 1
            self._wave_at[row] = 0

    def _recount(self, row: int, before: int, after: int) -> None:
        """Update the healthy devices of the last episode."""
        change = (after == _HEALTHY) - (before == _HEALTHY)
        key, count = self._healthy_since
        if change and self._activations.key_of(row) >= key:
            self._healthy_since = (key, count + change)

    def _make_room(self, rows: Rows) -> None:
        """Grow the columns for ``rows``, which must ascend."""
        if len(rows) and int(rows[-1]) >= len(self._bits):
            self._grow(int(rows[-1]) + 1)

    def _grow(self, rows: int) -> None:
        capacity = max(1024, rows, 2 * len(self._bits))
        self._bits = longer(self._bits, capacity)
        self._standing = longer(self._standing, capacity)
        self._activations.grow(capacity)
        self._started = longer(self._started, capacity)
        self._wave = longer(self._wave, capacity)
        self._show()

    def _show(self) -> None:
        """Make views of the same memory: an item costs a third of the time of an array item."""
        self._bits_at = self._bits.data
        self._standing_at = self._standing.data
        self._read_at = self._standing_at
        self._started_at = self._started.data
        self._wave_at = self._wave.data
