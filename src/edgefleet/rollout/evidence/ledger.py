"""What every device said about one rollout: a set of bits, and the standing that follows from it.

A report sets a bit, and the standing is a function of the bits alone. So the same report twice
changes nothing, and reports that arrive in another order end in the same counts. A start that was
withdrawn before the switch leaves no bit: of starts and of withdrawals the highest attempt counts,
and a start stands if its attempt is the higher one. A maximum, too, knows no order.
"""

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefleet.protocol.device import Outcome, OutcomeKind
from edgefleet.rollout.fleet.columns import Rows, longer, taken
from edgefleet.rollout.limits import REASONS_PER_ROLLOUT


class DeviceStanding(IntEnum):
    """How a device stands in a rollout. What ended badly outweighs what went well."""

    NONE = 0
    DEFERRED = 1
    TRIAL = 2
    HEALTHY = 3
    REFUSED = 4
    REVERTED = 5
    FAILED = 6  # also after it went back


EXCLUDED: Final = frozenset(
    {DeviceStanding.REFUSED, DeviceStanding.REVERTED, DeviceStanding.FAILED}
)
"""A device that stands so is never offered the release again."""
WENT_BACK: Final = frozenset({DeviceStanding.REVERTED, DeviceStanding.FAILED})
_IS_EXCLUDED: Final = np.array([standing in EXCLUDED for standing in DeviceStanding])

_BIT: Final = {
    OutcomeKind.DEFERRED: 1,
    OutcomeKind.TRIAL_STARTED: 2,
    OutcomeKind.CONFIRMED: 4,
    OutcomeKind.REFUSED: 8,
    OutcomeKind.REVERTED: 16,
    OutcomeKind.TRIAL_FAILED: 32,
    OutcomeKind.OFFERED: 0,  # the hub's own word, of no account here: see ``grants``
}
_STARTED: Final = _BIT[OutcomeKind.TRIAL_STARTED]
_EXPOSED_BITS: Final = 2 | 4 | 16 | 32
_WITH_REASON: Final = frozenset({OutcomeKind.REFUSED, OutcomeKind.TRIAL_FAILED})

# Bound once, as reports ask for them: Python 3.11 takes 0.2 us to find a member in its class.
_TRIAL_STARTED: Final = OutcomeKind.TRIAL_STARTED
_WITHDRAWN: Final = OutcomeKind.WITHDRAWN
_NONE: Final = DeviceStanding.NONE


def standing_of(bits: int) -> DeviceStanding:
    """The standing that a set of reports amounts to: that of its highest bit."""
    return DeviceStanding(bits.bit_length())


_ALL: Final = tuple(DeviceStanding)
_STANDINGS: Final = tuple(standing_of(bits) for bits in range(64))
_STANDING_OF: Final = np.array(_STANDINGS, np.uint8)


class Ledger:
    """Eleven bytes a device, and the counts that follow from them, kept as reports come in."""

    def __init__(self, waves: int) -> None:
        self._bits = np.zeros(0, np.uint8)
        self._standing = np.zeros(0, np.uint8)
        self._order = np.zeros(0, np.uint32)  # 1 for the first that activated it, 0 for none
        self._started = np.zeros(0, np.uint32)  # the highest attempt that asked to start
        self._wave = np.zeros(0, np.uint8)  # 1 + the wave that it counts in, 0 for none
        self._withdrawn: dict[int, int] = {}  # row -> the highest attempt that gave a start up
        self._activations = 0
        self._exposed_by_wave = [0] * waves
        self._reasons: dict[str, int] = {}
        self.counts = [0] * len(DeviceStanding)  # by standing; that of NONE means nothing
        self.exposed = 0  # devices that ever activated it
        self.version = 0  # grows with every report that changed something
        self._show()

    def record(self, row: int, outcome: Outcome, wave: int | None) -> DeviceStanding | None:
        """Record a report. Returns the standing that it leads to. None if it says nothing new.

        ``wave`` is the first one that the device lies in. None if it lies in none.
        """
        if row >= len(self._bits_at):
            self._grow(row + 1)
        before = self._bits_at[row]
        after = self._with(row, before, outcome)
        if after == before:
            return None
        self._bits_at[row] = after
        self._standing_at[row] = stands = after.bit_length()
        self.counts[before.bit_length()] -= 1
        self.counts[stands] += 1
        was_exposed = before & _EXPOSED_BITS
        if after & _EXPOSED_BITS:
            if not was_exposed:
                self._expose(row, wave)
        elif was_exposed:
            self._unexpose(row)
        if outcome.kind in _WITH_REASON:
            self._count_reason(outcome.reason or outcome.kind.value)
        self.version += 1
        return _ALL[stands]

    def record_all(
        self, rows: Rows, outcome: Outcome, waves: npt.NDArray[np.int16]
    ) -> npt.NDArray[np.bool_]:
        """``record`` for many devices that say the same; true where it says something new.

        ``rows`` ascend; ``waves`` are theirs, -1 where one lies in none.
        """
        starts = outcome.kind is _TRIAL_STARTED
        if outcome.kind is _WITHDRAWN or (starts and self._withdrawn):
            each = zip(rows.tolist(), waves.tolist(), strict=True)
            told = (
                self.record(row, outcome, None if wave < 0 else wave) is not None
                for row, wave in each
            )
            return np.fromiter(told, np.bool_, len(rows))
        self._make_room(rows)
        before = self._bits[rows]
        if starts:
            self._started[rows] = np.maximum(self._started[rows], outcome.attempt)
        after = before | np.uint8(_BIT[outcome.kind])
        new: npt.NDArray[np.bool_] = after != before
        if new.any():
            self._take_down(rows[new], before[new], after[new], waves[new])
            if outcome.kind in _WITH_REASON:
                self._count_reason(outcome.reason or outcome.kind.value, int(new.sum()))
        return new

    def standing(self, row: int) -> DeviceStanding:
        try:
            return _ALL[self._standing_at[row]]
        except IndexError:
            return _NONE

    def count(self, standing: DeviceStanding) -> int:
        """How many devices stand so; of those that said anything."""
        return self.counts[standing] if standing else 0

    @property
    def excludes_any(self) -> bool:
        """True when some device must not be offered the release again."""
        return any(self.counts[standing] for standing in EXCLUDED)

    def exposed_up_to(self, wave: int) -> int:
        """Devices inside that wave's cut that ever activated the release."""
        return sum(self._exposed_by_wave[: wave + 1])

    @property
    def reasons(self) -> dict[str, int]:
        """Why devices failed or refused, most frequent first."""
        return dict(sorted(self._reasons.items(), key=lambda item: (-item[1], item[0])))

    def standings(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """The standing of each of ``rows``, which ascend."""
        self._make_room(rows)
        found = taken(self._standing, rows)
        return found if found.base is None else found.copy()

    def excluded(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which of ``rows``, which ascend, must not be offered the release again."""
        excluded: npt.NDArray[np.bool_] = _IS_EXCLUDED[self.standings(rows)]
        return excluded

    def rows(self, *standings: DeviceStanding) -> Rows:
        """Rows that stand in one of these ways, ascending; of those that said anything."""
        if not any(self.count(standing) for standing in standings):
            return np.zeros(0, np.int64)
        found = self._standing == standings[0]
        for standing in standings[1:]:
            found |= self._standing == standing
        return np.flatnonzero(found)

    def newest_first(self, rows: Rows) -> Rows:
        """``rows``, those first that activated the release last."""
        if len(rows) and int(rows.max()) >= len(self._order):
            self._grow(int(rows.max()) + 1)
        return rows[np.argsort(-self._order[rows].astype(np.int64), kind="stable")]

    def exposed_mask(self, rows: int) -> npt.NDArray[np.bool_]:
        """For each of the first ``rows``: whether it ever activated the release."""
        if rows > len(self._bits):
            self._grow(rows)
        exposed: npt.NDArray[np.bool_] = (self._bits[:rows] & _EXPOSED_BITS) != 0
        return exposed

    def _with(self, row: int, bits: int, outcome: Outcome) -> int:
        """The bits of a device after a report."""
        kind, attempt = outcome.kind, outcome.attempt
        if kind is _TRIAL_STARTED:
            started = self._started_at[row]
            if attempt > started:
                self._started_at[row] = started = attempt
            return bits | _STARTED if started > self._withdrawn.get(row, -1) else bits
        if kind is _WITHDRAWN:
            self._withdrawn[row] = max(self._withdrawn.get(row, -1), attempt)
            return bits if self._started_at[row] > attempt else bits & ~_STARTED
        return bits | _BIT[kind]

    def _take_down(
        self,
        rows: Rows,
        before: npt.NDArray[np.uint8],
        after: npt.NDArray[np.uint8],
        waves: npt.NDArray[np.int16],
    ) -> None:
        """New bits of many devices, none of which lost any."""
        was, stands = _STANDING_OF[before], _STANDING_OF[after]
        self._bits[rows] = after
        self._standing[rows] = stands
        changed = np.bincount(stands, minlength=len(DeviceStanding))
        changed -= np.bincount(was, minlength=len(DeviceStanding))
        for standing in DeviceStanding:
            if standing is not _NONE:
                self.counts[standing] += int(changed[standing])
        fresh = (after & _EXPOSED_BITS != 0) & (before & _EXPOSED_BITS == 0)
        exposed, inside = rows[fresh], waves[fresh]
        self.exposed += len(exposed)
        self._order[exposed] = np.arange(1, len(exposed) + 1) + self._activations
        self._activations += len(exposed)
        self._wave[exposed] = inside + 1
        for wave, count in enumerate(np.bincount(inside[inside >= 0]).tolist()):
            self._exposed_by_wave[wave] += count
        self.version += len(rows)

    def _expose(self, row: int, wave: int | None) -> None:
        self.exposed += 1
        self._activations += 1
        self._order_at[row] = self._activations
        if wave is not None:
            self._exposed_by_wave[wave] += 1
            self._wave_at[row] = wave + 1

    def _unexpose(self, row: int) -> None:
        self.exposed -= 1
        self._order_at[row] = 0
        wave = self._wave_at[row]
        if wave:
            self._exposed_by_wave[wave - 1] -= 1
            self._wave_at[row] = 0

    def _count_reason(self, reason: str, devices: int = 1) -> None:
        if reason not in self._reasons and len(self._reasons) >= REASONS_PER_ROLLOUT:
            reason = "other"
        self._reasons[reason] = self._reasons.get(reason, 0) + devices

    def _make_room(self, rows: Rows) -> None:
        """``rows`` ascend."""
        if len(rows) and int(rows[-1]) >= len(self._bits):
            self._grow(int(rows[-1]) + 1)

    def _grow(self, rows: int) -> None:
        capacity = max(1024, rows, 2 * len(self._bits))
        self._bits = longer(self._bits, capacity)
        self._standing = longer(self._standing, capacity)
        self._order = longer(self._order, capacity)
        self._started = longer(self._started, capacity)
        self._wave = longer(self._wave, capacity)
        self._show()

    def _show(self) -> None:
        """The same memory, for one row at a time: a third of the time of an array's item."""
        self._bits_at = self._bits.data
        self._standing_at = self._standing.data
        self._order_at = self._order.data
        self._started_at = self._started.data
        self._wave_at = self._wave.data
