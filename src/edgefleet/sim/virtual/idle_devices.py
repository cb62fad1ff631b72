"""Idle devices as rows of numbers: they check in by formula, in sweeps.

A device of bucket k does so at every second that is k modulo the interval, and is woken only when
the hub has something to tell it.

Devices that are woken in one second and are alike in everything, faults and fate too, wake as one
(``Live``). Where links or power may fail at any message, each device goes alone.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgefleet.agent.state import AgentState
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.sim.virtual.active_device import fates
from edgefleet.sim.virtual.device_faults import Floats
from edgefleet.sim.virtual.environment import Outside
from edgefleet.sim.virtual.folded_state import Folded


class Idle:
    """All rows, and which of them are idle now; none is at first."""

    def __init__(self, outside: Outside) -> None:
        facts, scenario = outside.facts, outside.scenario
        self.heartbeats = 0
        self._outside = outside
        self._folded = Folded(facts.count)
        self._fates = fates(facts.luck, scenario.release)
        self._awake: Mask = np.ones(facts.count, np.bool_)  # live, lost, or not there yet
        self._hub_number: npt.NDArray[np.uint32] = np.zeros(facts.count, np.uint32)
        alone = outside.rough or scenario.faults.power_cuts > 0 or scenario.fleet.apart
        self._together = not alone
        interval = int(scenario.fleet.interval_s)
        order = np.argsort(facts.bucket, kind="stable")
        ends = np.searchsorted(facts.bucket[order], np.arange(interval + 1))
        self._buckets = [
            order[ends[number] : ends[number + 1]].astype(np.int64) for number in range(interval)
        ]

    def rest(self, rows: Rows, state: AgentState, hub_number: int) -> None:
        """``rows`` are idle from now on, in this settled state; what they run has that number."""
        self._folded.fold(rows, state)
        self._hub_number[rows] = hub_number
        self._awake[rows] = False

    def leave(self, rows: Rows) -> None:
        """``rows`` are idle no more."""
        self._awake[rows] = True

    def state(self, row: int, now: float) -> AgentState:
        """That of an idle device which is about to check in, at ``now`` of its own clock."""
        return self._folded.unfold(row, now)

    def told(self, second: int) -> Iterator[Rows]:
        """Let the devices of this second check in: those who are told something, and so wake."""
        now, facts, hub = self._outside.now, self._outside.facts, self._outside.hub
        rows = self._buckets[second % len(self._buckets)]
        rows = rows[~self._awake[rows]]
        if not len(rows):
            return
        rows = rows[facts.all_up(rows, now)]
        if hub.down_until:
            return
        self.heard(rows, now)
        wanted = rows[hub.wanted(rows)]
        if not len(wanted):
            return
        alike = np.zeros(len(wanted), np.bool_)
        if self._together:
            alike = facts.plain(wanted, now)
        yield from wanted[~alike, None]
        yield from self._folded.alike(wanted[alike], self._fates)

    def foresee(self, second: int, until: int) -> tuple[Rows, Floats, int]:
        """Idle devices that check in from ``second`` on, when, and up to which second that holds.

        It ends at ``until``, or before the first that is told something: whoever is idle now and
        comes before it hears nothing new, as long as nothing is stored or decided.
        """
        outside = self._outside
        until = min(until, second + len(self._buckets))
        buckets = [self._buckets[at % len(self._buckets)] for at in range(second, until)]
        at = np.repeat(np.arange(second, until, dtype=np.float64), [len(one) for one in buckets])
        rows = np.concatenate(buckets)
        here = ~self._awake[rows]
        here[here] = outside.facts.all_up(rows[here], at[here])
        rows, at = rows[here], at[here]
        told = outside.hub.wanted(np.sort(rows))
        if told.any():
            until = int(at[np.isin(rows, np.sort(rows)[told])].min())
        before = int(np.searchsorted(at, until))
        return rows[:before], at[:before], until

    def heard(self, rows: Rows, at: float | Floats) -> None:
        """These idle devices have checked in, all at once or each at its own time."""
        self.heartbeats += len(rows)
        self._outside.hub.engine.fleet.heartbeats(rows, at, self._hub_number[rows])
