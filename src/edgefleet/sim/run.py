"""One run of a scenario: first everything may go wrong, then all is healed, and it has to end."""

import gc
import math
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
from edgefleet.rollout.columns import Mask
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.gate import Gate, judge
from edgefleet.rollout.state import OPEN, RolloutState, WaveState
from edgefleet.sim import releases
from edgefleet.sim.agenda import Agenda
from edgefleet.sim.checkers import ALL
from edgefleet.sim.checkers.soak import Soak
from edgefleet.sim.crowd import Crowd
from edgefleet.sim.facts import FleetFacts
from edgefleet.sim.hub import SimHub
from edgefleet.sim.quiet import Quiet
from edgefleet.sim.scenario import MODEL, NEW, OLD, Act, Deed, Scenario
from edgefleet.sim.store import Store
from edgefleet.sim.trace import Trace
from edgefleet.sim.witness import Checker, Violation, Witnesses

START = 1_767_571_200.0  # Monday, 5 January 2026, 00:00 UTC
ROLLOUT, BASELINE = "ro-1", "ro-0"
THINKS_S = 90.0  # before a person agrees with what is open
SETTLE_S = 1800.0  # after the end, so that whoever can be reached has heard of it
POINTS = 400  # of the curve that is drawn
POINT_S = 60.0  # between two of them
WORD_S = 300.0  # between two lines of progress


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
    steps: int  # of agent cores, counted for each device
    stepped: int  # counted once for devices that are alike and went together
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
    """A world of its own; two of them do not touch.

    A ``gate`` of your own judges the waves in place of the usual one, whose soak it need not keep.
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
            self.store,
            self.trace,
            now=self.start,
            interval_s=scenario.fleet.interval_s,
            gate=gate,
        )
        self._chance = Random(seed)  # noqa: S311 - chance that repeats is what is wanted
        self.agenda = Agenda(int(self.start))
        self.crowd = Crowd(scenario, self.facts, self.hub, self.agenda, self._chance)
        kept = checkers if gate is judge else [one for one in checkers if one is not Soak]
        self.witnesses = Witnesses(kept, self)
        self.hub.witnesses = self.crowd.witnesses = self.witnesses
        self.hub.keeps_standings = scenario.faults.hub_crashes > 0
        self._person = ""
        self._curve: list[Point] = []
        self._next_point = self._next_word = self.start
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
        acts = [act for act in self.scenario.operator if self.start + act.at_s >= self.now]
        comers = [
            int(row)
            for row in np.argsort(self.facts.comes_at[self.facts.devices :]) + self.facts.devices
            if self.facts.comes_at[row] >= self.now
        ]
        second = int(self.now)
        quiet = Quiet(int(self.scenario.tick_s), int(self.start), second)
        while second < end:
            self.now = self.crowd.now = float(second)
            self._incidents(acts, comers)
            quiet.heed(second, self._mark())
            if second >= quiet.tick_at:
                self._tick()
                if until_over and self._over() and not acts and not comers:
                    return
                quiet.looked(second, self._deadline() if quiet.resting else math.inf)
            until = math.ceil(min(end, quiet.tick_at, self._next_incident(acts, comers)))
            second = self._rest(second, until) if quiet.resting else self._second(second)

    def _second(self, second: int) -> int:
        """One second, in which anything may happen; returns the next."""
        self.crowd.sweep(second)
        self._during(second)
        return second + 1

    def _rest(self, second: int, until: int) -> int:
        """Quiet seconds: idle devices are heard together. Ends early if something happens."""
        crowd = self.crowd
        if self.hub.down_until or until <= second:
            return self._second(second)
        rows, at, until = crowd.foresee(second, until)
        if until <= second:
            return self._second(second)
        mark = self._mark()
        while second < until and self._mark() == mark:
            self._during(second)
            second += 1
        heard = int(np.searchsorted(at, second))
        crowd.heard(rows[:heard], at[:heard])
        return second

    def _during(self, second: int) -> None:
        """What is on the agenda of this second."""
        crowd = self.crowd
        for at, _, due, live, life, payload in self.agenda.during(second):
            self.now = crowd.now = at
            crowd.due(due, live, life, payload)

    def _mark(self) -> tuple[int, ...]:
        """The same as long as nothing is stored or decided, and nobody comes, goes or wakes."""
        hub = self.hub
        down = int(hub.down_until > 0)
        return self.store.commits, hub.crashes, down, len(self.crowd.live), len(hub.engine.fleet)

    def _deadline(self) -> float:
        """When the rollout's wait ends by the clock."""
        if self.hub.down_until or self._state().status not in OPEN:
            return math.inf
        waits = self.engine.why_rollout(ROLLOUT, self.now).waits
        known = (wait.until for wait in waits if wait.until is not None)
        return min((until for until in known if until > self.now), default=math.inf)

    def _next_incident(self, acts: list[Act], comers: list[int]) -> float:
        """When something next comes from outside."""
        times = [self.start + act.at_s for act in acts[:1]]
        times += [self.facts.comes_at.item(row) for row in comers[:1]]
        times += [at for at, _, _ in self._crash_times[:1]]
        return min(times, default=math.inf)

    def _incidents(self, acts: list[Act], comers: list[int]) -> None:
        """What comes from outside at this second: operators, newcomers, a killed hub."""
        while acts and self.start + acts[0].at_s <= self.now and not self.hub.down_until:
            self._act(acts.pop(0).verb)
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

    def _act(self, deed: Deed) -> None:
        if deed in (Deed.FREEZE, Deed.THAW):
            self.hub.freeze(self.now, frozen=deed is Deed.FREEZE)
        else:
            self.hub.command(ROLLOUT, Verb(deed), self.now)

    def _tick(self) -> None:
        self.hub.tick(self.now)
        if self.hub.down_until:
            return
        for hear in self.witnesses.ticked:
            hear(self.now)
        self._ask_person()
        if self.now >= self._next_point:
            self._note_point()

    def _over(self) -> bool:
        return not self.hub.down_until and self._state().status not in OPEN

    def _state(self) -> RolloutState:
        return next(state for state in self.engine.states() if state.id == ROLLOUT)

    def _ask_person(self) -> None:
        """Long after all is healed, a person decides what no gate will."""
        healed_s = self.now - self.start - self.scenario.heal_s
        state = self._state()
        if state.status is Status.RUNNING and missing(state) and self.now >= _agreed_at(state):
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
        for live in self.crowd.live:
            live.bytes_s = self.facts.bytes_s(live.row)

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
        self._next_point = self.now + POINT_S
        if self.now >= self._next_word:
            self._next_word = self.now + WORD_S
            minutes = int(self.now - self.start) // 60
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
        events = self.crowd.events + self.crowd.heartbeats
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
            stepped=self.crowd.stepped,
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


def _agreed_at(state: RolloutState) -> float:
    """When the next person has made up their mind about what is open."""
    wave = state.open_wave
    opened_at = state.created_at if wave is None else wave.opened_at or 0.0
    return THINKS_S + max(opened_at, *(given.at for given in state.approvals), state.created_at)


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
