"""Idle devices as rows of numbers, whose check-ins are computed in bulk.

A device of bucket k checks in at every second that is k modulo the interval. A device wakes only if
the hub has a new answer for it: an offer, or the question for its models.

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
from edgefleet.sim.virtual.environment import NOTHING, Environment
from edgefleet.sim.virtual.folded_state import FoldedStates


class IdleDevices:
    """All rows, and which of them are idle. At first no device is idle."""

    def __init__(self, environment: Environment) -> None:
        facts, scenario = environment.facts, environment.scenario
        self.heartbeats = 0
        self._environment = environment
        self._folded = FoldedStates(facts.count)
        self._fates = fates(facts.luck, environment.truths)
        self._awake: Mask = np.ones(facts.count, np.bool_)  # active, dead, or not enrolled yet
        self._hub_number: npt.NDArray[np.uint32] = np.zeros(facts.count, np.uint32)
        self._one_model = facts.one_model  # the agents that name their model in each check-in
        self._any_one_model = bool(facts.one_model.any())
        alone = environment.rough or scenario.faults.power_cuts > 0 or scenario.fleet.apart
        self._together = not alone
        interval = int(scenario.fleet.interval_s)
        order = np.argsort(facts.bucket, kind="stable")
        ends = np.searchsorted(facts.bucket[order], np.arange(interval + 1))
        self._buckets = [
            order[ends[number] : ends[number + 1]].astype(np.int64) for number in range(interval)
        ]

    def rest(self, rows: Rows, state: AgentState) -> None:
        """Make ``rows`` idle in this settled state."""
        self._folded.fold(rows, state)
        if self._any_one_model:
            models = self._environment.hub.engine.fleet.models
            reports = self._folded.reports(int(rows[0]))
            named = [(one.model, one.release) for one in reports if one.release is not None]
            self._hub_number[rows] = models.release_id(*named[0]) if named else NOTHING
        self._awake[rows] = False

    def wake(self, rows: Rows) -> None:
        """``rows`` are no longer idle."""
        self._awake[rows] = True

    def state(self, rows: Rows, now: float) -> AgentState:
        """The state of equal idle devices whose check-in is due at ``now`` by their own clock."""
        return self._folded.unfold(rows, now)

    def resting(self, count: int) -> Mask:
        """For each of the first ``count`` rows whether the device is idle."""
        return ~self._awake[:count]

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
        wanted = rows[self._has_news(rows)]
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
        ascending = np.sort(rows)
        has_news = self._has_news(ascending)
        if has_news.any():
            until = int(at[np.isin(rows, ascending[has_news])].min())
        before = int(np.searchsorted(at, until))
        return rows[:before], at[:before], until

    def record_check_ins(self, rows: Rows, at: float | Floats) -> None:
        """Record check-ins of idle devices, at one time or each at its own time."""
        self.heartbeats += len(rows)
        fleet = self._environment.hub.engine.fleet
        if self._any_one_model and len(rows):
            mine = self._one_model[rows]
            times = np.broadcast_to(np.asarray(at), len(rows))
            fleet.heartbeats(rows[mine], times[mine], self._hub_number[rows[mine]])
            rows, at = rows[~mine], times[~mine]
        fleet.digest_heartbeats(rows, at)

    def _has_news(self, rows: Rows) -> Mask:
        """For each of the ascending ``rows``: whether the answer to a heartbeat is not empty.

        The hub may offer a release, or the digest of the heartbeat differs from the hub's own.
        """
        hub = self._environment.hub
        differs = hub.engine.fleet.models.all_digests_differ(rows, self._folded.digests(rows))
        if self._any_one_model:
            differs &= ~self._one_model[rows]
        return differs | hub.wanted(rows)
