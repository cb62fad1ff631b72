"""Idle devices as rows of numbers, whose check-ins are computed in bulk.

A device of bucket k checks in at every second that is k modulo the interval. A device wakes only if
the hub has a new answer for it.

Devices that wake in the same second and are equal, including their faults and their luck, wake as
one group (``ActiveDevice``). If links or power may fail at any message, each device wakes alone.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgefleet.agent.state import AgentState
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.sim.virtual.active_device import fates
from edgefleet.sim.virtual.device_faults import Floats
from edgefleet.sim.virtual.environment import Environment
from edgefleet.sim.virtual.folded_state import FoldedStates


class IdleDevices:
    """All rows, and which of them are idle. At first no device is idle."""

    def __init__(self, environment: Environment) -> None:
        facts, scenario = environment.facts, environment.scenario
        self.heartbeats = 0
        self._environment = environment
        self._folded = FoldedStates(facts.count)
        self._fates = fates(facts.luck, scenario.release)
        self._awake: Mask = np.ones(facts.count, np.bool_)  # active, dead, or not enrolled yet
        self._hub_number: npt.NDArray[np.uint32] = np.zeros(facts.count, np.uint32)
        alone = environment.rough or scenario.faults.power_cuts > 0 or scenario.fleet.apart
        self._together = not alone
        interval = int(scenario.fleet.interval_s)
        order = np.argsort(facts.bucket, kind="stable")
        ends = np.searchsorted(facts.bucket[order], np.arange(interval + 1))
        self._buckets = [
            order[ends[number] : ends[number + 1]].astype(np.int64) for number in range(interval)
        ]

    def rest(self, rows: Rows, state: AgentState, hub_number: int) -> None:
        """Make ``rows`` idle in this settled state. Their release has the number ``hub_number``."""
        self._folded.fold(rows, state)
        self._hub_number[rows] = hub_number
        self._awake[rows] = False

    def wake(self, rows: Rows) -> None:
        """``rows`` are no longer idle."""
        self._awake[rows] = True

    def state(self, row: int, now: float) -> AgentState:
        """The state of an idle device whose check-in is due at ``now`` by its own clock."""
        return self._folded.unfold(row, now)

    def check_in(self, second: int) -> Iterator[Rows]:
        """Check in the devices of this second. Yields groups with a new answer, to be woken."""
        now, facts, hub = self._environment.now, self._environment.facts, self._environment.hub
        rows = self._buckets[second % len(self._buckets)]
        rows = rows[~self._awake[rows]]
        if not len(rows):
            return
        rows = rows[facts.all_up(rows, now)]
        if hub.down_until:
            return
        self.record_check_ins(rows, now)
        wanted = rows[hub.wanted(rows)]
        if not len(wanted):
            return
        alike = np.zeros(len(wanted), np.bool_)
        if self._together:
            alike = facts.plain(wanted, now)
        yield from wanted[~alike, None]
        yield from self._folded.alike(wanted[alike], self._fates)

    def foresee(self, second: int, until: int) -> tuple[Rows, Floats, int]:
        """Idle devices that check in from ``second`` on, their times, and the end of the forecast.

        The forecast ends at ``until``, or at the first device with a new answer. It is valid as
        long as nothing is stored or decided.
        """
        environment = self._environment
        until = min(until, second + len(self._buckets))
        buckets = [self._buckets[at % len(self._buckets)] for at in range(second, until)]
        at = np.repeat(np.arange(second, until, dtype=np.float64), [len(one) for one in buckets])
        rows = np.concatenate(buckets)
        here = ~self._awake[rows]
        here[here] = environment.facts.all_up(rows[here], at[here])
        rows, at = rows[here], at[here]
        wanted = environment.hub.wanted(np.sort(rows))
        if wanted.any():
            until = int(at[np.isin(rows, np.sort(rows)[wanted])].min())
        before = int(np.searchsorted(at, until))
        return rows[:before], at[:before], until

    def record_check_ins(self, rows: Rows, at: float | Floats) -> None:
        """Record check-ins of idle devices, at one time or each at its own time."""
        self.heartbeats += len(rows)
        self._environment.hub.engine.fleet.heartbeats(rows, at, self._hub_number[rows])
