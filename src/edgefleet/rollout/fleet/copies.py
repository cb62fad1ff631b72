"""Copied devices: several agents use one credential, as after a copy of a disk.

Each run of an agent has a random number. A run that was followed by another one has ended, unless
two agents are at work. A run counts as returned if it checks in after a later run did; a device is
copied once the same run has returned twice. A restart makes a new run, so it returns nothing. A
check-in that arrives late has a sequence number that was used before, so it is refused.

An agent names its run in its first check-in and after each one that failed. Other check-ins need no
name: after a check-in of one agent, the next number of each other one was used, so it is refused.
An agent that is always overtaken is refused each time. A device is copied, too, once the same run
was refused REFUSALS times while another one checks in.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from edgefleet.rollout.fleet.columns import Rows, longer

SUSPECTS: Final = 10_000  # devices that are not copied and whose runs are remembered
RUNS: Final = 16  # remembered of one device
RETURNS: Final = 2  # of one run
REFUSALS: Final = 4  # of one run, since it was accepted last
OLD_S: Final = 86_400.0  # a run that was silent for so long gives its place to another one

Runs = Mapping[int, float]
"""Runs of agents, each with the time of its last check-in."""


class Copies:
    """The last run of each device, and the runs of devices that may be or are copied.

    A copied device stays copied until an operator clears it. ``changed`` rows are not stored yet.
    """

    def __init__(self) -> None:
        self.changed: set[int] = set()
        self._last = np.zeros(0, np.uint32)
        self._last_at = self._last.data
        self._runs: dict[int, dict[int, float]] = {}
        self._returns: dict[int, dict[int, int]] = {}  # row -> run -> number
        self._refusals: dict[int, dict[int, int]] = {}  # the same
        self._cleared: set[int] = set()  # one of the runs may go on; the others may not return
        self._copied: set[int] = set()
        self._rows: Rows = np.zeros(0, np.int64)

    def load(self, copied: Mapping[int, Runs]) -> None:
        """Restore from the store."""
        for row, runs in copied.items():
            self._runs[row] = dict(runs)
            self._copied.add(row)
        self._arrange()

    def refused(self, row: int, run: int, last_seen: float | None) -> None:
        """A check-in with a used number: it was delayed, its agent lost its state, or is a second.

        ``last_seen`` is the last accepted check-in of the device.
        """
        last = self._last_of(row)
        if not last or run == last:
            return
        if row not in self._runs:
            if len(self._runs) - len(self._copied) >= SUSPECTS:
                self.forget(next(one for one in self._runs if one not in self._copied))
            self._runs[row] = {last: last_seen or 0.0}
        if not run or row in self._copied:
            return
        runs, refusals = self._runs[row], self._refusals.setdefault(row, {})
        if run not in refusals and len(refusals) >= RUNS:
            return
        refusals[run] = refusals.get(run, 0) + 1
        if refusals[run] >= REFUSALS:
            if len(runs) < RUNS:
                runs.setdefault(run, last_seen or 0.0)
            self._copy(row)

    def is_of_last_run(self, row: int, run: int) -> bool:
        """True if a check-in of ``run`` is of the agent that checked in last. 0: it names none.

        False for a device that may be copied, or whose agent has not named its run: it names it
        after each check-in without an answer.
        """
        last = self._last_of(row)
        return last != 0 and row not in self._runs and run in (0, last)

    def accepted(self, row: int, run: int, now: float) -> None:
        """A check-in of a device. A ``run`` of 0 is the last one that was named."""
        runs, last = self._runs.get(row), self._last_of(row)
        run = run or last
        if run != last:
            self._last_at[row] = run
        if runs is None or not run:
            return
        self._refusals.get(row, {}).pop(run, None)
        if run in runs:
            if last not in (run, 0) and row not in self._copied:
                self._return(row, run)
        elif len(runs) >= RUNS:
            _make_room(runs, run, now)
        if run in runs or len(runs) < RUNS:
            runs[run] = now
        if row in self._copied:
            self.changed.add(row)

    def clear(self, row: int) -> None:
        """An operator stopped the copies: the agent that checks in next goes on. It is durable.

        If another known run checks in after it, the device is copied again once it returns.
        """
        self._copied.discard(row)
        self._count_anew(row)
        self._cleared.add(row)
        if self._last_of(row):
            self._last_at[row] = 0
        self.changed.add(row)  # a write that was on its way may have stored it again
        self._arrange()

    def forget(self, row: int) -> None:
        """Forget the runs of a device."""
        self._runs.pop(row, None)
        self._count_anew(row)
        if row in self._copied:
            self._copied.discard(row)
            self.changed.add(row)
            self._arrange()

    def is_copied(self, row: int) -> bool:
        """True if several agents use the credential of this device."""
        return row in self._copied

    def runs(self, row: int) -> Iterator[tuple[int, float]]:
        """The runs of a copied device with their last check-ins, the last one first."""
        if row in self._copied:
            yield from sorted(self._runs[row].items(), key=lambda one: -one[1])

    @property
    def rows(self) -> Rows:
        """The rows of copied devices, ascending."""
        return self._rows

    def without(self, rows: Rows) -> Rows:
        """The ``rows`` that are not copied."""
        return rows[~np.isin(rows, self._rows)] if len(self._rows) else rows

    def _return(self, row: int, run: int) -> None:
        returns = self._returns.setdefault(row, {})
        returns[run] = returns.get(run, 0) + 1
        if returns[run] < RETURNS and row not in self._cleared:
            return
        self._copy(row)

    def _copy(self, row: int) -> None:
        self._count_anew(row)
        self._copied.add(row)
        self.changed.add(row)
        self._arrange()

    def _count_anew(self, row: int) -> None:
        self._returns.pop(row, None)
        self._refusals.pop(row, None)
        self._cleared.discard(row)

    def _last_of(self, row: int) -> int:
        if row >= len(self._last_at):
            self._last = longer(self._last, max(1024, row + 1, 2 * len(self._last)))
            self._last_at = self._last.data
        return self._last_at[row]

    def _arrange(self) -> None:
        self._rows = np.array(sorted(self._copied), np.int64)


def _make_room(runs: dict[int, float], run: int, now: float) -> None:
    """Remove an old run, or one with a higher number than ``run``.

    The lowest numbers stay, so that of many agents in turn the same ones are known when they
    return.
    """
    oldest, highest = min(runs, key=runs.__getitem__), max(runs)
    if now - runs[oldest] > OLD_S:
        del runs[oldest]
    elif run < highest:
        del runs[highest]
