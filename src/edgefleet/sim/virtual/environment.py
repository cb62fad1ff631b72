"""The environment of the agent cores in a run: time, random draws, event queue, hub, faults."""

from collections import Counter
from random import Random
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from edgefleet.agent.event import Event
from edgefleet.agent.state import Pace
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual.active_device import ActiveDevice, Traffic
from edgefleet.sim.virtual.device_faults import DeviceFaults
from edgefleet.sim.virtual.event_queue import HAPPENED, TIMER, EventQueue
from edgefleet.sim.virtual.hub import SimHub
from edgefleet.sim.virtual.labelling import Labelled
from edgefleet.sim.virtual.scenario import NEW, OLD, Scenario

NOTHING: Final = 0  # in ``serving``
NUMBERS: Final = {OLD: 1, NEW: 2}  # of releases, in ``serving``
_LONG_S: Final = 3600.0


class Environment:
    """``now`` is set by the run, from ``start`` on. ``facts`` are columns by row.

    ``draw`` is the only source of random numbers, so the order of draws is part of the run.
    """

    def __init__(
        self,
        scenario: Scenario,
        facts: DeviceFaults,
        hub: SimHub,
        *,
        queue: EventQueue,
        chance: Random,
        start: float,
    ) -> None:
        self.scenario = scenario
        self.facts = facts
        self.hub = hub
        self.queue = queue
        self.draw = chance.random
        self.start = self.now = start
        self.suffered: Counter[str] = Counter()  # number of faults, and of newcomers
        self.truths = {
            model: msgspec.structs.replace(
                truth,
                late_from_s=start + truth.late_from_s,
                ends_from_s=start + truth.ends_from_s,
            )
            for model, truth in scenario.truths.items()
        }
        faults = scenario.faults
        down_at, quiet_at = start + faults.outage_at_s, start + faults.no_traffic_at_s
        self.traffic = Traffic(
            outage=(down_at, down_at + faults.outage_s),
            pause=(quiet_at, quiet_at + faults.no_traffic_s),
            labelled=Labelled(scenario.fleet.labelled, scenario.fleet.labels_late_s),
        )
        self.serving: dict[str, npt.NDArray[np.uint8]] = {  # by model and row, the true state
            model: np.zeros(facts.count, np.uint8) for model in scenario.models
        }
        faults = scenario.faults
        self.rough = faults.loss > 0 or faults.doubling > 0 or faults.reordering > 0  # links
        plans = (scenario.rollout, *(side.rollout for side in scenario.beside))
        confirm_after_s = min(plan.gate.confirm_after_s for plan in plans)
        self._pace = Pace(probe_idle_s=_LONG_S, probe_trial_s=confirm_after_s)
        self._panel_pace = msgspec.structs.replace(
            self._pace, probe_idle_s=scenario.fleet.interval_s
        )

    def pace(self, *, stays: bool) -> Pace:
        """How often a core probes its serving process. ``stays`` is that of ``ActiveDevice``."""
        return self._panel_pace if stays else self._pace

    def stop_serving(self, rows: Rows) -> None:
        """The serving processes of the devices have ended."""
        for numbers in self.serving.values():
            numbers[rows] = NOTHING

    def later(self, live: ActiveDevice, delay_s: float, event: Event) -> None:
        """Schedule the event that ends an effect of a core."""
        self.queue.put(self.now + delay_s, HAPPENED, live, event)

    def schedule_timer(self, live: ActiveDevice, at: float) -> None:
        """Schedule the core's timer at ``at``, or now if ``at`` is past."""
        live.timer_at = at
        at = max(at, self.now)
        if live.pushed_at > at:
            live.pushed_at = at
            self.queue.put(at, TIMER, live)
