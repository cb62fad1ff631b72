"""Scheduled incidents: operator actions, rollouts beside the first, newcomers, hub crashes."""

import math
from random import Random
from typing import NamedTuple

import numpy as np

from edgefleet.base.ids import device_hash, mix64
from edgefleet.protocol.rollout import Verb
from edgefleet.sim.virtual.devices import Devices
from edgefleet.sim.virtual.scenario import Act, Deed, SideRollout


class _Crash(NamedTuple):
    """A crash of the hub after ``effects`` more effects. Then the hub is down for ``down_s``."""

    at: float
    effects: int
    down_s: float
    restores: bool  # the reports of the devices come from a backup


class Incidents:
    """The incidents still to come. ``chance`` draws the times of the hub's crashes.

    ``salt`` places the devices in the waves of the rollouts beside the first.
    """

    def __init__(self, devices: Devices, chance: Random, *, salt: int) -> None:
        self._salt = salt
        self._devices = devices
        self._environment = devices.environment
        self._acts: list[Act] = []
        sides = devices.environment.scenario.beside
        self._plans = sorted(sides, key=lambda side: side.at_s)
        self._comers: list[int] = []
        self._crashes = self._planned(chance)

    @property
    def asked(self) -> bool:
        """Whether actions, rollouts or newcomers are still to come (crashes do not count)."""
        return bool(self._acts or self._comers or self._plans)

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
        times += [self._environment.start + side.at_s for side in self._plans[:1]]
        times += [crash.at for crash in self._crashes[:1]]
        return min(times, default=math.inf)

    def happen(self) -> None:
        """Execute the due incidents. Operator actions and newcomers wait until the hub is up."""
        environment, acts, comers = self._environment, self._acts, self._comers
        now, hub, facts = environment.now, environment.hub, environment.facts
        while self._plans and environment.start + self._plans[0].at_s <= now and not hub.down_until:
            self._plan(self._plans.pop(0))
        while acts and environment.start + acts[0].at_s <= now and not hub.down_until:
            self._act(acts.pop(0))
        if comers and not hub.down_until:
            while comers and facts.comes_at[comers[0]] <= now:
                row = len(hub.engine.fleet)
                comers.pop(0)
                hub.trace.note(now, "enrolled", facts.name(row), "")
                environment.suffered["newcomers"] += 1
                self._devices.enrol(row)
        if self._crashes and self._crashes[0].at <= now and not facts.healed:
            crash = self._crashes.pop(0)
            hub.crash_in, hub.down_s, hub.is_restored = crash.effects, crash.down_s, crash.restores
            environment.suffered["hub_restores" if crash.restores else "hub_crashes"] += 1

    def heal(self) -> None:
        """Cancel all further crashes of the hub."""
        self._crashes = []
        self._environment.hub.crash_in = None

    def _act(self, act: Act) -> None:
        hub, now = self._environment.hub, self._environment.now
        if act.verb in (Deed.FREEZE, Deed.THAW):
            hub.freeze(now, frozen=act.verb is Deed.FREEZE)
        else:
            hub.command(self._environment.scenario.rollouts[act.model], Verb(act.verb), now)

    def _plan(self, side: SideRollout) -> None:
        hub, now = self._environment.hub, self._environment.now
        rollout = self._environment.scenario.rollouts[side.rollout.model]
        salt = mix64(self._salt ^ device_hash(rollout))
        hub.plan(side.rollout, rollout_id=rollout, salt=salt, now=now)
        hub.command(rollout, Verb.START, now)

    def _planned(self, chance: Random) -> list[_Crash]:
        scenario, start = self._environment.scenario, self._environment.start
        faults = scenario.faults
        last_s = min(3600.0, scenario.heal_s)
        crashes: list[_Crash] = []
        for count, restores in ((faults.hub_crashes, False), (faults.hub_restores, True)):
            times = sorted(start + chance.uniform(1.0, last_s) for _ in range(count))
            crashes += [
                _Crash(at, chance.randrange(4), chance.uniform(*faults.hub_down_s), restores)
                for at in times
            ]
        return sorted(crashes)
