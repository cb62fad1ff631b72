"""One run of a scenario: first everything may go wrong, then all is healed, and it has to end."""

import gc
import resource
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from random import Random

import numpy as np
import numpy.typing as npt

from edgefleet.base.ids import mix64
from edgefleet.protocol.rollout import RolloutSpec, RolloutView, Status, Verb
from edgefleet.protocol.why import WaitCode
from edgefleet.protocol.wire import Wire
from edgefleet.rollout.approval import missing
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.fleet import Mask
from edgefleet.rollout.state import OPEN, RolloutState, WaveState
from edgefleet.sim import releases
from edgefleet.sim.agenda import Agenda
from edgefleet.sim.checkers import ALL
from edgefleet.sim.crowd import Crowd
from edgefleet.sim.facts import FleetFacts
from edgefleet.sim.hub import SimHub
from edgefleet.sim.scenario import MODEL, NEW, OLD, Act, Scenario
from edgefleet.sim.store import Store
from edgefleet.sim.trace import Trace
from edgefleet.sim.witness import Checker, Violation, Witnesses

START = 1_767_571_200.0  # Monday, 5 January 2026, 00:00 UTC
ROLLOUT, BASELINE = "ro-1", "ro-0"
SETTLE_S = 1800.0  # after the end, so that whoever can be reached has heard of it
POINTS = 400  # of the curve that is drawn


class Point(Wire, frozen=True, kw_only=True):
    """The rollout at one moment."""

    at_s: float
    wave: int
    cut: int
    exposed: int
    in_trial: int
    healthy: int
    failed: int


class WaveResult(Wire, frozen=True, kw_only=True):
    """What became of a wave."""

    name: str
    cut: int
    opened_s: float
    closed_s: float | None
    verdict: str
    reason: str


class Result(Wire, frozen=True, kw_only=True):
    """One run. The same seed and code give the same ``trace_digest``, whatever the machine."""

    scenario: str
    devices: int
    seed: int
    events: int  # agenda entries and check-ins of idle devices
    events_per_s: int
    steps: int  # of agent cores
    heartbeats: int  # of idle devices
    reports: int  # outcomes that became durable
    wall_s: float
    cpu_s: float  # of this process, as the machine may do other things too
    virtual_s: float
    peak_rss_mib: int
    violations: int
    violated: tuple[Violation, ...]
    by_checker: dict[str, int]
    finished: bool
    verdict: str
    reason: str
    text: str
    person: str  # the verb that a person had to say in the end, if any
    waves: tuple[WaveResult, ...]
    exposed: int
    ended_s: float | None
    faults: dict[str, int]
    trace_digest: str
    curve: tuple[Point, ...] = ()


class Run:
    """A world of its own; two of them do not touch."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        name: str,
        devices: int,
        seed: int,
        start: float = START,
        checkers: Sequence[type[Checker]] = ALL,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.scenario = scenario
        self.start = self.now = float(int(start))
        self._name = name
        self._seed = seed
        self._progress = progress
        self._began = time.perf_counter()
        self._began_cpu = time.process_time()
        self.trace = Trace()
        self.store = Store()
        self.facts = FleetFacts(scenario, devices, seed, self.start)
        self.hub = SimHub(
            self.store, self.trace, now=self.start, interval_s=scenario.fleet.interval_s
        )
        self._chance = Random(seed)  # noqa: S311 - chance that repeats is what is wanted
        self.agenda = Agenda(int(self.start))
        self.crowd = Crowd(scenario, self.facts, self.hub, self.agenda, self._chance)
        self.witnesses = Witnesses(checkers, self)
        self.hub.witnesses = self.crowd.witnesses = self.witnesses
        self.hub.keeps_standings = scenario.faults.hub_crashes > 0
        self._popped = 0
        self._person = ""
        self._curve: list[Point] = []
        self._crash_times = self._plan_crashes()

    # What checkers may know.

    @property
    def engine(self) -> Engine:
        return self.hub.engine

    @property
    def healed(self) -> bool:
        return self.facts.healed

    @property
    def release_under_test(self) -> str:
        return NEW

    def serves(self) -> npt.NDArray[np.uint8]:
        return self.crowd.serving[: len(self.engine.fleet)]

    def reachable(self) -> Mask:
        rows = np.arange(len(self.engine.fleet))
        return self.facts.all_up(rows, self.now)

    def name(self, row: int) -> str:
        return self.facts.name(row)

    # The run.

    def play(self) -> Result:
        """All of it."""
        with _no_collector():
            finished = self._to_its_end()
            self.settle(SETTLE_S)
            for hear in self.witnesses.ended:
                hear(self.now)
        return self._result(finished=finished)

    def play_until_over(self) -> Result:
        """Up to the moment at which the rollout has ended."""
        with _no_collector():
            finished = self._to_its_end()
        return self._result(finished=finished)

    def settle(self, seconds: float) -> None:
        """Go on for so long, so that whoever can be reached hears how it ended."""
        self._go(self.now + seconds, until_over=False)

    def _to_its_end(self) -> bool:
        self._set_up()
        heal_at = self.start + self.scenario.heal_s
        self._until(heal_at)
        self._heal()
        self._until(heal_at + self.scenario.end_s)
        return self._over()

    def _set_up(self) -> None:
        hub, scenario = self.hub, self.scenario
        facts = self.facts
        for row in range(facts.devices):
            hub.enrol(facts.name(row), facts.device(row).profile, facts.labels(row))
        for release in (OLD, NEW):
            made, sha256 = releases.manifest(release, scenario, self.start)
            hub.publish(made, sha256)
            self.crowd.know(made, sha256)
        baseline = _baseline(facts.devices, self.start)
        self.store.save_state(baseline)
        hub.engine.load(baseline)
        self.crowd.now = self.now
        rows = np.arange(facts.devices)
        number = np.uint32(hub.engine.fleet.release_id(MODEL, OLD))
        hub.engine.fleet.heartbeats(rows, self.start, np.full(facts.devices, number, np.uint32))
        self.crowd.install(OLD)
        self.store.save_standings(hub.engine.fleet)
        self._say("fleet of " + str(facts.devices))
        hub.plan(scenario.rollout, rollout_id=ROLLOUT, salt=mix64(self._seed), now=self.start)
        hub.command(ROLLOUT, Verb.START, self.start)

    def _until(self, end: float) -> None:
        """Go on until the rollout is over or ``end`` is reached."""
        self._go(end, until_over=True)

    def _go(self, end: float, *, until_over: bool) -> None:
        agenda, crowd, facts = self.agenda, self.crowd, self.facts
        tick_s = self.scenario.tick_s
        acts = [act for act in self.scenario.operator if self.start + act.at_s >= self.now]
        comers = [
            int(row)
            for row in np.argsort(facts.comes_at[facts.devices :]) + facts.devices
            if facts.comes_at[row] >= self.now
        ]
        second = int(self.now)
        next_tick = second
        while second < end:
            self.now = crowd.now = float(second)
            self._incidents(acts, comers)
            if second >= next_tick:
                self._tick()
                next_tick = second + int(tick_s)
                if until_over and self._over() and not acts and not comers:
                    return
            crowd.sweep(second)
            for at, _, due, live, life, payload in agenda.during(second):
                if live.life == life and life >= 0:
                    self.now = crowd.now = at
                    self._popped += 1
                    crowd.due(due, live, payload)
            second += 1

    def _incidents(self, acts: list[Act], comers: list[int]) -> None:
        """What comes from outside at this second: operators, newcomers, a killed hub."""
        while acts and self.start + acts[0].at_s <= self.now:
            self.hub.command(ROLLOUT, acts.pop(0).verb, self.now)
        if comers and not self.hub.down_until:
            while comers and self.facts.comes_at[comers[0]] <= self.now:
                row = len(self.engine.fleet)
                comers.pop(0)
                self.trace.note(self.now, "enrolled", self.facts.name(row), "")
                self.crowd.faults["newcomers"] += 1
                self.crowd.enrol(row)
        if self._crash_times and self._crash_times[0][0] <= self.now and not self.healed:
            _, self.hub.crash_in, self.hub.down_s = self._crash_times.pop(0)
            self.crowd.faults["hub_crashes"] += 1

    def _tick(self) -> None:
        self.hub.tick(self.now)
        if self.hub.down_until:
            return
        for hear in self.witnesses.ticked:
            hear(self.now)
        self._ask_person()
        if int(self.now - self.start) % 60 == 0:
            self._note_point()

    def _over(self) -> bool:
        return not self.hub.down_until and self._state().status not in OPEN

    def _state(self) -> RolloutState:
        return next(state for state in self.engine.states() if state.id == ROLLOUT)

    def _ask_person(self) -> None:
        """Long after all is healed, a person decides what no gate will."""
        healed_s = self.now - self.start - self.scenario.heal_s
        state = self._state()
        if state.spec.approval.people and state.status in OPEN and missing(state):
            self.hub.approve(ROLLOUT, f"person-{len(state.approvals) + 1}", self.now)
        if healed_s < self.scenario.person_s or state.status not in OPEN or self._person:
            return
        waits = {wait.code for wait in self.engine.why_rollout(ROLLOUT, self.now).waits}
        if waits & {WaitCode.INCONCLUSIVE, WaitCode.SAMPLE, WaitCode.HALTED, WaitCode.PAUSED}:
            verb = Verb.REVERT if state.started_at is not None else Verb.HALT
            if self.hub.command(ROLLOUT, verb, self.now):
                self._person = verb.value

    def _heal(self) -> None:
        """Links are up, disks have room, the hub stays up. What is bricked stays bricked."""
        self.trace.note(self.now, "healed", "everything", "")
        self.facts.healed = True
        self._crash_times = []
        self.hub.crash_in = None
        if self.hub.down_until:
            self.hub.start_again(self.now)
        for row, live in self.crowd.live.items():
            live.bytes_s = self.facts.bytes_s(row)

    def _plan_crashes(self) -> list[tuple[float, int, float]]:
        """(when it is armed, how many effects later it happens, how long it is down)."""
        faults = self.scenario.faults
        times = sorted(
            self.start + self._chance.uniform(1.0, min(3600.0, self.scenario.heal_s))
            for _ in range(faults.hub_crashes)
        )
        return [
            (at, self._chance.randrange(4), self._chance.uniform(*faults.hub_down_s))
            for at in times
        ]

    # What is said of it.

    def _note_point(self) -> None:
        view = self.engine.view(ROLLOUT, self.now)
        evidence = view.evidence
        wave = view.waves[view.wave] if view.wave is not None else None
        point = Point(
            at_s=self.now - self.start,
            wave=view.wave or 0,
            cut=(wave.cut if wave else None) or 0,
            exposed=view.exposed,
            in_trial=evidence.in_trial,
            healthy=evidence.healthy,
            failed=evidence.failed + evidence.refused,
        )
        self._curve.append(point)
        if len(self._curve) > POINTS:
            del self._curve[1:-1:2]
        minutes = int(self.now - self.start) // 60
        if minutes % 5 == 0:
            self._say(
                f"minute {minutes}: {view.status}, wave {point.wave + 1}, {point.exposed} exposed, "
                f"{point.in_trial} in trial, {point.healthy} healthy"
            )

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress(f"{time.perf_counter() - self._began:6.1f} s  {text}")

    def _result(self, *, finished: bool) -> Result:
        view = self.engine.view(ROLLOUT, self.now)
        wall_s = time.perf_counter() - self._began
        events = self._popped + self.crowd.heartbeats
        faults = {**self.crowd.faults}
        for kind in (
            "offline",
            "flapping",
            "thin",
            "wrong_clocks",
            "old_agents",
            "previous_agents",
        ):
            if getattr(self.scenario.faults, kind):
                faults[kind] = _affected(self.facts, kind, self.start)
        return Result(
            scenario=self._name,
            devices=self.facts.devices,
            seed=self._seed,
            events=events,
            events_per_s=int(events / wall_s),
            steps=self.crowd.steps,
            heartbeats=self.crowd.heartbeats,
            reports=len(self.store),
            wall_s=round(wall_s, 2),
            cpu_s=round(time.process_time() - self._began_cpu, 2),
            virtual_s=self.now - self.start,
            peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            violations=self.witnesses.count,
            violated=tuple(self.witnesses.violations),
            by_checker=dict(self.witnesses.by_checker),
            finished=finished,
            verdict=view.status.value,
            reason=view.reason,
            text=view.text,
            person=self._person,
            waves=_waves(view, self.start),
            exposed=view.exposed,
            ended_s=None if view.ended_at is None else view.ended_at - self.start,
            faults=dict(sorted(faults.items())),
            trace_digest=self.trace.digest(),
            curve=tuple(self._curve),
        )


def _waves(view: RolloutView, start: float) -> tuple[WaveResult, ...]:
    return tuple(
        WaveResult(
            name=wave.name or f"{wave.percent:g} %",
            cut=wave.cut or 0,
            opened_s=wave.opened_at - start,
            closed_s=None if wave.closed_at is None else wave.closed_at - start,
            verdict=wave.judgement.verdict.value if wave.judgement else "",
            reason=wave.judgement.reason if wave.judgement else "",
        )
        for wave in view.waves
        if wave.opened_at is not None
    )


def _affected(facts: FleetFacts, kind: str, start: float) -> int:
    columns = {
        "offline": facts.away_until > start,
        "flapping": np.isfinite(facts.up_s),
        "thin": facts.thin,
        "wrong_clocks": facts.skew != 0,
        "old_agents": facts.old,
        "previous_agents": facts.previous,
    }
    return int(columns[kind].sum())


def _baseline(devices: int, start: float) -> RolloutState:
    """The rollout, long over, that gave the fleet what it runs."""
    everyone = WaveState(
        percent=100.0,
        cut=devices,
        threshold=f"{1 << 64:x}",
        population=devices,
        rows=devices,
        opened_at=start - 7200,
        closed_at=start - 3600,
    )
    return RolloutState(
        id=BASELINE,
        spec=RolloutSpec(model=MODEL, release=OLD, follow=True),
        salt=0,
        previous=None,
        status=Status.COMPLETED,
        reason="completed",
        text="All waves passed.",
        since=start - 3600,
        created_at=start - 7200,
        started_at=start - 7200,
        ended_at=start - 3600,
        wave=0,
        waves=(everyone,),
    )


@contextmanager
def _no_collector() -> Generator[None]:
    """A million live objects without cycles: looking for some costs more than all the rest."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
        sys.stderr.flush()
