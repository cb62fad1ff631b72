"""Runs of agents: two devices with one credential are told from one that was restarted.

Each run of an agent has a random number. A run that checks in again after a later run did so has
not ended: two devices have the credential, as after a copy of a disk. A delayed check-in of an
earlier run has a sequence number that was used before, so it is refused and proves nothing.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from edgefleet.rollout.fleet.columns import Rows, longer

SUSPECTS: Final = 10_000  # rows whose runs are remembered
RUNS: Final = 8  # remembered of one device

Run = tuple[int, float]
"""The number of a run, and when it last checked in."""


class Boots:
    """The last run of each device, and the runs of devices with two at once. Not persisted."""

    def __init__(self, kept_s: float) -> None:
        """A device counts as copied until one run was alone for ``kept_s`` seconds."""
        self._kept_s = kept_s
        self._last = np.zeros(0, np.uint32)
        self._last_at = self._last.data
        self._suspects: dict[int, dict[int, float]] = {}  # row -> run -> last check-in
        self._copied: dict[int, float] = {}  # row -> when a run came back
        self._rows: Rows = np.zeros(0, np.int64)

    def refused(self, row: int, run: int, now: float) -> None:
        """A check-in with a used number: by a delayed message, a lost state, or a second device."""
        last = self._last_of(row)
        if not run or not last or run == last or row in self._suspects:
            return
        if len(self._suspects) >= SUSPECTS:
            self.forget(next(iter(self._suspects)))
        self._suspects[row] = {last: now}

    def accepted(self, row: int, run: int, now: float) -> None:
        """A check-in of a device."""
        last = self._last_of(row)
        if run != last:
            self._last_at[row] = run
        runs = self._suspects.get(row)
        if runs is None:
            return
        if run != last and run in runs:
            self._copied[row] = now
            self._arrange()
        elif now - self._copied.get(row, now) > self._kept_s:
            self.forget(row)
            return
        runs.pop(run, None)
        runs[run] = now
        if len(runs) > RUNS:
            del runs[next(iter(runs))]

    def forget(self, row: int) -> None:
        """Forget the earlier runs of a device."""
        self._suspects.pop(row, None)
        if self._copied.pop(row, None) is not None:
            self._arrange()

    def is_copied(self, row: int) -> bool:
        """True if two devices use the credential of this device."""
        return row in self._copied

    def runs(self, row: int) -> Iterator[Run]:
        """The runs of a copied device, the last check-in first."""
        if row in self._copied:
            yield from reversed(self._suspects[row].items())

    @property
    def copied_rows(self) -> Rows:
        """The rows of copied devices, ascending."""
        return self._rows

    def _last_of(self, row: int) -> int:
        if row >= len(self._last_at):
            self._last = longer(self._last, max(1024, row + 1, 2 * len(self._last)))
            self._last_at = self._last.data
        return self._last_at[row]

    def _arrange(self) -> None:
        self._rows = np.array(sorted(self._copied), np.int64)
