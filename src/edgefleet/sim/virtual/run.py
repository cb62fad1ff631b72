"""One run of a scenario: first with faults, then healed, until the rollouts end."""

import gc
import math
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from random import Random

import numpy as np
import numpy.typing as npt

from edgefleet.base.ids import mix64
from edgefleet.protocol.rollout import Verb
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.evidence.gate import Gate, judge
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.sim.virtual import initial_state as baseline
from edgefleet.sim.virtual.checkers import ALL
from edgefleet.sim.virtual.checkers.soak import Soak
from edgefleet.sim.virtual.curve import Curves
from edgefleet.sim.virtual.device_faults import DeviceFaults
from edgefleet.sim.virtual.devices import Devices
from edgefleet.sim.virtual.environment import Environment
from edgefleet.sim.virtual.event_queue import EventQueue
from edgefleet.sim.virtual.hub import SimHub
from edgefleet.sim.virtual.observer import Checker, Witnesses
from edgefleet.sim.virtual.operator import Operator
from edgefleet.sim.virtual.result import Result, result_of
from edgefleet.sim.virtual.scenario import MODEL, ROLLOUT, Scenario
from edgefleet.sim.virtual.scheduled_actions import Incidents
from edgefleet.sim.virtual.store import Store
from edgefleet.sim.virtual.tick_schedule import TickSchedule
from edgefleet.sim.virtual.trace import Trace

START = 1_767_571_200.0  # Monday, 5 January 2026, 00:00 UTC
SETTLE_S = 1800.0  # after the end, so that every reachable device checks in
MODEL_S = 600.0  # and longer for each further model: a device gets them one after the other


class Run:
    """One simulation. Two runs share no state.

    A custom ``gate`` replaces the built-in one, and need not respect the soak time.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        name: str,
        devices: int,
        seed: int,
        start: float = START,
        checkers: Sequence[type[Checker]] = ALL,
        gate: Gate = judge,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.scenario = scenario
        self.start = float(int(start))
        self._name = name
        self._seed = seed
        self._began = time.perf_counter()
        self._began_cpu = time.process_time()
        self.trace = Trace()
        self.store = Store()
        self.facts = DeviceFaults(scenario, devices, seed, self.start)
        self.hub = SimHub(
            self.store,
            self.trace,
            now=self.start,
            interval_s=scenario.fleet.interval_s,
            gate=gate,
        )
        self.queue = EventQueue(int(self.start))
        chance = Random(seed)  # noqa: S311 - reproducible on purpose
        self.environment = Environment(
            scenario, self.facts, self.hub, queue=self.queue, chance=chance, start=self.start
        )
        self.devices = Devices(self.environment)
        kept = checkers if gate is judge else [one for one in checkers if one is not Soak]
        self.witnesses = self.hub.witnesses = Witnesses(kept, self)
        self.hub.keeps_standings = scenario.faults.hub_crashes + scenario.faults.hub_restores > 0
        self._rollouts = scenario.rollouts
        self._incidents = Incidents(self.devices, chance, salt=mix64(seed))
        self._person = Operator(self.environment)
        self._curves = Curves(self.environment, self._began, progress)

    # The view for checkers.

    @property
    def now(self) -> float:
        return self.environment.now

    @property
    def engine(self) -> Engine:
        return self.hub.engine

    @property
    def healed(self) -> bool:
        return self.facts.healed

    @property
    def models(self) -> tuple[str, ...]:
        return self.scenario.models

    @property
    def rollouts(self) -> dict[str, str]:
        return self._rollouts

    @property
    def one_model(self) -> Mask:
        return self.facts.one_model[: len(self.engine.fleet)]

    def model_of(self, rollout: str) -> str:
        return self.engine.rollout(rollout).model

    def serves(self, model: str = MODEL) -> npt.NDArray[np.uint8]:
        return self.environment.serving[model][: len(self.engine.fleet)]

    def has(self, model: str) -> Mask:
        count, facts = len(self.engine.fleet), self.facts
        has = facts.has[model][:count]
        if not facts.one_model.any() or count <= facts.devices:
            return has
        others = [self.serves(other) > 0 for other in self.models if other != model]
        if not others:
            return has
        bound = facts.one_model[:count] & np.any(others, axis=0)
        bound[: facts.devices] = False
        mask: Mask = has & ~bound
        return mask

    def settled(self) -> Mask:
        return self.devices.idle.resting(len(self.engine.fleet))

    def reachable(self) -> Mask:
        rows = np.arange(len(self.engine.fleet))
        return self.facts.all_up(rows, self.now)

    def name(self, row: int) -> str:
        return self.facts.name(row)

    # The run.

    def play(self) -> Result:
        """Run the rollouts to their end, settle, and run the final checks."""
        with _no_collector():
            finished = self._to_its_end()
            several = self.scenario.beside or self.scenario.fleet.newcomers
            self.settle(SETTLE_S + (MODEL_S * (len(self.models) - 1) if several else 0.0))
            for hear in self.witnesses.ended:
                hear(self.now)
        return self._result(finished=finished)

    def play_until_over(self) -> Result:
        """Run until the rollouts have ended, without the final checks."""
        with _no_collector():
            finished = self._to_its_end()
        return self._result(finished=finished)

    def settle(self, seconds: float) -> None:
        """Continue for ``seconds``, so that every reachable device checks in."""
        self._go(self.now + seconds, until_over=False)

    def _to_its_end(self) -> bool:
        self._set_up()
        heal_at = self.start + self.scenario.heal_s
        self._until(heal_at)
        self._heal()
        self._until(heal_at + self.scenario.end_s)
        return self._over()

    def _set_up(self) -> None:
        baseline.set_up(self.devices)
        self._curves.log(f"fleet of {self.facts.devices}")
        salt = mix64(self._seed)
        self.hub.plan(self.scenario.rollout, rollout_id=ROLLOUT, salt=salt, now=self.start)
        self.hub.command(ROLLOUT, Verb.START, self.start)

    def _until(self, end: float) -> None:
        """Continue until the rollout is over or ``end`` is reached."""
        self._go(end, until_over=True)

    def _go(self, end: float, *, until_over: bool) -> None:
        incidents = self._incidents
        incidents.since(self.now)
        second = int(self.now)
        schedule = TickSchedule(int(self.scenario.tick_s), int(self.start), second)
        while second < end:
            self.environment.now = float(second)
            incidents.happen()
            schedule.update(second, self._mark())
            if second >= schedule.tick_at:
                self._tick()
                if until_over and self._over() and not incidents.asked:
                    return
                schedule.ticked(second, self._deadline() if schedule.resting else math.inf)
            until = math.ceil(min(end, schedule.tick_at, incidents.next_at()))
            second = self._rest(second, until) if schedule.resting else self._second(second)

    def _second(self, second: int) -> int:
        """Simulate one second in full. Returns the next second."""
        self.devices.sweep(second)
        self._during(second)
        return second + 1

    def _rest(self, second: int, until: int) -> int:
        """Simulate quiet seconds, with the check-ins of idle devices in bulk.

        Ends early if something happens. Returns the next second.
        """
        idle = self.devices.idle
        if self.hub.down_until or until <= second:
            return self._second(second)
        rows, at, until = idle.foresee(second, until)
        if until <= second:
            return self._second(second)
        mark = self._mark()
        while second < until and self._mark() == mark:
            self._during(second)
            second += 1
        count = int(np.searchsorted(at, second))
        idle.record_check_ins(rows[:count], at[:count])
        return second

    def _during(self, second: int) -> None:
        """Handle the events of this second."""
        environment, devices = self.environment, self.devices
        for at, _, due, live, life, payload in self.queue.during(second):
            environment.now = at
            devices.due(due, live, life, payload)

    def _mark(self) -> tuple[int, ...]:
        """A value that changes if anything is stored or decided, or a device enrols or wakes."""
        hub = self.hub
        down = int(hub.down_until > 0)
        return self.store.commits, hub.crashes, down, len(self.devices.live), len(hub.engine.fleet)

    def _deadline(self) -> float:
        """Time at which a rollout's wait ends without any event. Infinity if there is none."""
        if self.hub.down_until:
            return math.inf
        rollouts = self.engine.evaluated_rollouts()
        waits = [w for one in rollouts for w in self.engine.why_rollout(one, self.now).waits]
        known = (wait.until for wait in waits if wait.until is not None)
        return min((until for until in known if until > self.now), default=math.inf)

    def _tick(self) -> None:
        self.hub.tick(self.now)
        if self.hub.down_until:
            return
        for hear in self.witnesses.ticked:
            hear(self.now)
        for state in self.engine.states():
            if state.id in self._rollouts.values():
                self._person.act(state)
        self._curves.note()

    def _over(self) -> bool:
        bakes = any(state.is_baking for state in self.engine.states())
        return not self.hub.down_until and not bakes and not self.engine.open_rollouts()

    def _heal(self) -> None:
        """End all faults of links, disks and the hub. Dead devices remain dead."""
        self.trace.note(self.now, "healed", "everything", "")
        self.facts.healed = True
        self._incidents.heal()
        if self.hub.down_until:
            self.hub.start_again(self.now)
        for live in self.devices.live:
            live.bytes_s = self.facts.bytes_s(live.row)

    def _result(self, *, finished: bool) -> Result:
        return result_of(
            self.devices,
            self.witnesses,
            name=self._name,
            seed=self._seed,
            finished=finished,
            persons=self._person.verbs,
            curves=self._curves.points,
            wall_s=time.perf_counter() - self._began,
            cpu_s=time.process_time() - self._began_cpu,
        )


@contextmanager
def _no_collector() -> Generator[None]:
    """Disable the cycle collector: a million objects without cycles make its scans too slow."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
        sys.stderr.flush()
