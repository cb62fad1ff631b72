"""Scheduled incidents of a scenario: operator actions, newcomers and crashes of the hub."""

import math
from random import Random

import numpy as np

from edgefleet.protocol.rollout import Verb
from edgefleet.sim.virtual.devices import Devices
from edgefleet.sim.virtual.scenario import ROLLOUT, Act, Deed


class Incidents:
    """The incidents still to come. ``chance`` draws the times of the hub's crashes."""

    def __init__(self, devices: Devices, chance: Random) -> None:
        self._devices = devices
        self._environment = devices.environment
        self._acts: list[Act] = []
        self._comers: list[int] = []
        self._crashes = self._planned(chance)

    @property
    def asked(self) -> bool:
        """Whether operator actions or newcomers are still to come (crashes do not count)."""
        return bool(self._acts or self._comers)

    def since(self, now: float) -> None:
        """Schedule the incidents at ``now`` and later."""
        environment = self._environment
        facts, start = environment.facts, environment.start
        self._acts = [act for act in environment.scenario.operator if start + act.at_s >= now]
        self._comers = [
            int(row)
            for row in np.argsort(facts.comes_at[facts.devices :]) + facts.devices
            if facts.comes_at[row] >= now
        ]

    def next_at(self) -> float:
        """Time of the next incident. Infinity if none is to come."""
        times = [self._environment.start + act.at_s for act in self._acts[:1]]
        times += [self._environment.facts.comes_at.item(row) for row in self._comers[:1]]
        times += [at for at, _, _ in self._crashes[:1]]
        return min(times, default=math.inf)

    def happen(self) -> None:
        """Execute the due incidents. Operator actions and newcomers wait until the hub is up."""
        environment, acts, comers = self._environment, self._acts, self._comers
        now, hub, facts = environment.now, environment.hub, environment.facts
        while acts and environment.start + acts[0].at_s <= now and not hub.down_until:
            self._act(acts.pop(0).verb)
        if comers and not hub.down_until:
            while comers and facts.comes_at[comers[0]] <= now:
                row = len(hub.engine.fleet)
                comers.pop(0)
                hub.trace.note(now, "enrolled", facts.name(row), "")
                environment.suffered["newcomers"] += 1
                self._devices.enrol(row)
        if self._crashes and self._crashes[0][0] <= now and not facts.healed:
            _, hub.crash_in, hub.down_s = self._crashes.pop(0)
            environment.suffered["hub_crashes"] += 1

    def heal(self) -> None:
        """Cancel all further crashes of the hub."""
        self._crashes = []
        self._environment.hub.crash_in = None

    def _act(self, deed: Deed) -> None:
        hub, now = self._environment.hub, self._environment.now
        if deed in (Deed.FREEZE, Deed.THAW):
            hub.freeze(now, frozen=deed is Deed.FREEZE)
        else:
            hub.command(ROLLOUT, Verb(deed), now)

    def _planned(self, chance: Random) -> list[tuple[float, int, float]]:
        """(time, number of effects until the crash, downtime in seconds) of each crash."""
        scenario, start = self._environment.scenario, self._environment.start
        faults = scenario.faults
        times = sorted(
            start + chance.uniform(1.0, min(3600.0, scenario.heal_s))
            for _ in range(faults.hub_crashes)
        )
        return [(at, chance.randrange(4), chance.uniform(*faults.hub_down_s)) for at in times]
