"""All devices of a run: rows of numbers while nothing happens, real agent cores when it does.

The effects of each core are done here, on a virtual link, disk and serving process, with their
faults. Idle devices check in by formula, in sweeps: a device of bucket k does so at every second
that is k modulo the interval, and is woken only when the hub has something to tell it.

Devices that are woken in one second and are alike in everything, faults and fate too, are stepped
as one and draw as one, until the hub tells some of them something else (``Live``). Where links or
power may fail at any message, each device goes alone.
"""

import math
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.agent.state import AgentState, Held, Pace, Slot, SlotName, Soft, slot
from edgefleet.agent.step import step
from edgefleet.protocol.device import CheckIn, CheckInAnswer, Facts
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.serving import ProveResult
from edgefleet.rollout.columns import Mask, Rows
from edgefleet.sim import figures
from edgefleet.sim.agenda import Agenda, Due
from edgefleet.sim.door import Failed
from edgefleet.sim.facts import FleetFacts, Floats
from edgefleet.sim.hub import SimHub
from edgefleet.sim.limits import ANSWER_TIMEOUT_S
from edgefleet.sim.live import Live, bricks, burns, fates, refuses
from edgefleet.sim.previous import Previous
from edgefleet.sim.releases import held
from edgefleet.sim.rows import Folded, parted, settled
from edgefleet.sim.scenario import MODEL, NEW, Scenario, Truth
from edgefleet.sim.witness import Witnesses

_NONE: Final = 0
_LOST: Final = -1  # the life in which nothing happens any more
NUMBERS: Final = {"1": 1, "2": 2}  # in ``serves``
_NOT_PROVED: Final = ProveResult(passed=False, reason="golden_failed", detail="0.71 of 0.9.")
_LONG_S: Final = 3600.0
_HARMLESS: Final = Truth()

# Bound once, as each event asks for one: Python 3.11 takes 0.2 us to find a member in its class.
_TIMER: Final = Due.TIMER
_HAPPENED: Final = Due.HAPPENED
_ARRIVES: Final = Due.ARRIVES
_ANSWERED: Final = Due.ANSWERED
_BOOTS: Final = Due.BOOTS


class Crowd:
    """``now`` is set by the run. ``fleet`` are facts by row, ``hub`` is the only hub."""

    def __init__(
        self,
        scenario: Scenario,
        fleet: FleetFacts,
        hub: SimHub,
        agenda: Agenda,
        chance: Random,
    ) -> None:
        self.scenario = scenario
        self.fleet = fleet
        self.hub = hub
        self.agenda = agenda
        self.witnesses: Witnesses | None = None
        self.now = 0.0
        self.events = 0  # entries of the agenda, counted for each device
        self.steps = 0  # of agent cores, counted for each device
        self.stepped = 0  # counted once for devices that went together
        self.heartbeats = 0  # of idle devices
        self.faults: Counter[str] = Counter()
        self.live: dict[Live, None] = {}
        self.serving: npt.NDArray[np.uint8] = np.zeros(fleet.count, np.uint8)
        self._draw: Callable[[], float] = chance.random
        self._folded = Folded(fleet.count)
        self._fates = fates(fleet.luck, scenario.release)
        self._previous = Previous(fleet.previous)
        self._awake: Mask = np.ones(fleet.count, np.bool_)  # live, lost, or not there yet
        self._hub_number: npt.NDArray[np.uint32] = np.zeros(fleet.count, np.uint32)
        self._soon: deque[tuple[Live, int, Event]] = deque()
        self._manifests: dict[str, tuple[ReleaseManifest, str]] = {}
        self._held: dict[tuple[str, str], Held] = {}
        interval = int(scenario.fleet.interval_s)
        order = np.argsort(fleet.bucket, kind="stable")
        ends = np.searchsorted(fleet.bucket[order], np.arange(interval + 1))
        self._buckets = [
            order[ends[number] : ends[number + 1]].astype(np.int64) for number in range(interval)
        ]
        self._pace = Pace(probe_idle_s=_LONG_S, probe_trial_s=scenario.rollout.gate.confirm_after_s)
        self._panel_pace = msgspec.structs.replace(
            self._pace, probe_idle_s=scenario.fleet.interval_s
        )
        faults = scenario.faults
        self._rough = faults.loss > 0 or faults.doubling > 0 or faults.reordering > 0
        self._cuts = faults.power_cuts > 0
        self._together = not (self._rough or self._cuts or scenario.fleet.apart)
        self._effects: dict[type, Callable[[Live, Any], None]] = {
            do.SendCheckIn: self._send,
            do.FetchManifest: self._fetch_manifest,
            do.Fetch: self._fetch,
            do.Prove: self._prove,
            do.StopWork: self._stop_work,
            do.Activate: self._activate,
            do.StopServing: self._stop_serving,
            do.Probe: self._probe,
            do.MovePointer: self._move_pointer,
            do.RemoveSlot: self._remove_slot,
            do.SetTimer: self._set_timer,
        }

    # The fleet.

    def know(self, made: ReleaseManifest, sha256: str) -> None:
        """A release that devices may be offered."""
        self._manifests[sha256] = (made, sha256)
        for profile in self.scenario.fleet.profiles:
            self._held[made.release, profile] = held(made, sha256, profile)

    def install(self, release: str) -> None:
        """All devices that are there from the start run ``release``, confirmed."""
        number = self.hub.engine.fleet.release_id(MODEL, release)
        every = np.arange(self.fleet.devices)
        accuracy = figures.truth_of(release, self.scenario.release).accuracy
        for rows in parted(every, (self.fleet.kinds(every), self.fleet.panel[every])):
            facts = self.fleet.device(int(rows[0]))
            mine = Slot(
                held=self._held[release, facts.profile],
                proved=True,
                confirmed=True,
                accuracy=accuracy,
            )
            self._folded.fold(rows, self._state(facts, int(rows[0]), active="a", a=mine))
        self._awake[: self.fleet.devices] = False
        self.serving[: self.fleet.devices] = NUMBERS[release]
        self._hub_number[: self.fleet.devices] = number
        for row in np.flatnonzero(self.fleet.panel).tolist():
            self._wake(np.array([row]), self.now + self._draw() * self.scenario.fleet.interval_s)

    def enrol(self, row: int) -> None:
        """A device comes new, without any release."""
        facts = self.fleet.device(row)
        self.hub.enrol(self.fleet.name(row), facts.profile, self.fleet.labels(row))
        new = AgentState(interval_s=self.scenario.fleet.interval_s)
        self._boot(self._alive(np.array([row]), new))

    def _state(
        self, facts: Facts, row: int, *, active: SlotName | None = None, a: Slot
    ) -> AgentState:
        return AgentState(
            active=active,
            a=a,
            facts=facts,
            facts_known=True,
            interval_s=self.scenario.fleet.interval_s,
            pace=self._panel_pace if self.fleet.panel[row] else self._pace,
            seq_reserved=1024,
        )

    # Idle devices.

    def sweep(self, second: int) -> None:
        """Let the devices of this second check in, and wake those who are told something."""
        rows = self._buckets[second % len(self._buckets)]
        rows = rows[~self._awake[rows]]
        if not len(rows):
            return
        rows = rows[self.fleet.all_up(rows, self.now)]
        if self.hub.down_until:
            return
        self.heartbeats += len(rows)
        self.hub.engine.fleet.heartbeats(rows, self.now, self._hub_number[rows])
        wanted = rows[self.hub.wanted(rows, self.now)]
        if not len(wanted):
            return
        alike = np.zeros(len(wanted), np.bool_)
        if self._together:
            alike = self.fleet.plain(wanted, self.now)
        for row in wanted[~alike, None]:
            self._wake(row, self.now)
        for rows in self._folded.alike(wanted[alike], self._fates):
            self._wake(rows, self.now)

    def foresee(self, second: int, until: int) -> tuple[Rows, Floats, int]:
        """Idle devices that check in from ``second`` on, when, and up to which second that holds.

        It ends at ``until``, or before the first that is told something: whoever is idle now and
        comes before it hears nothing new, as long as nothing is stored or decided.
        """
        until = min(until, second + len(self._buckets))
        buckets = [self._buckets[at % len(self._buckets)] for at in range(second, until)]
        at = np.repeat(np.arange(second, until, dtype=np.float64), [len(one) for one in buckets])
        rows = np.concatenate(buckets)
        here = ~self._awake[rows]
        here[here] = self.fleet.all_up(rows[here], at[here])
        rows, at = rows[here], at[here]
        told = self.hub.wanted(np.sort(rows), self.now)
        if told.any():
            until = int(at[np.isin(rows, np.sort(rows)[told])].min())
        before = int(np.searchsorted(at, until))
        return rows[:before], at[:before], until

    def heard(self, rows: Rows, at: Floats) -> None:
        """Those that were foreseen have checked in."""
        self.heartbeats += len(rows)
        self.hub.engine.fleet.heartbeats(rows, at, self._hub_number[rows])

    def _wake(self, rows: Rows, at: float) -> None:
        state = self._folded.unfold(int(rows[0]), at + self.fleet.skew.item(int(rows[0])))
        live = self._alive(rows, state)
        live.pointer = state.active
        if state.active is not None:
            live.held = slot(state, state.active).held
            live.swapped_at = self.now - 3600.0
            live.state = figures.reminded(state, live.held, self.scenario.release)
        self._at(live, at)

    def _alive(self, rows: Rows, state: AgentState) -> Live:
        row = int(rows[0])
        live = Live(rows, state, self.fleet.luck.item(row))
        live.skew = self.fleet.skew.item(row)
        live.requests_s = self.scenario.fleet.requests_s
        live.bytes_s = self.fleet.bytes_s(row)
        live.stays = bool(self.fleet.panel[row])
        self.live[live] = None
        self._awake[rows] = True
        return live

    def _fold(self, live: Live) -> None:
        rows, state = live.rows, live.state
        self._folded.fold(rows, state)
        mine = slot(state, state.active).held if state.active else None
        release = mine.release if mine else None
        fleet = self.hub.engine.fleet
        self._hub_number[rows] = fleet.release_id(MODEL, release) if release else _NONE
        live.life += 1
        del self.live[live]
        self._awake[rows] = False

    # Busy devices.

    def due(self, due: Due, live: Live, life: int, payload: Any) -> None:
        """One entry of the agenda, put there in the life of that number."""
        for part in live.whole() if live.parts else (live,):
            if part.life == life != _LOST:
                self.events += len(part.rows)
                self._due(due, part, payload)

    def _due(self, due: Due, live: Live, payload: Any) -> None:
        if due is _HAPPENED:
            self._happen(live, payload)
        elif due is _TIMER:
            if live.pushed_at != self.now:
                return  # an earlier one was asked for since
            live.pushed_at = float("inf")
            if live.timer_at > self.now:
                self._at(live, live.timer_at)
            else:
                self._happen(live, happened.Woke(draw=self._draw()))
        elif due is _ARRIVES:
            self._arrive(live, payload)
        elif due is _ANSWERED:
            parts = live.part(tuple(rows for _, rows in payload))
            del self.live[live]
            self.live.update(dict.fromkeys(parts))
            for part, (event, _) in zip(parts, payload, strict=True):
                self._happen(part, event)
        elif due is _BOOTS:
            self._boot(live)
        self._finish()

    def _finish(self) -> None:
        """Tell cores what came to its end at once."""
        soon = self._soon
        while soon:
            live, life, event = soon.popleft()
            for part in live.whole():
                if part.life == life != _LOST:
                    self._happen(part, event)

    def _happen(self, live: Live, event: Event) -> None:
        """One step of a core: save, then do its effects in order, unless the power goes."""
        if self._previous.any:
            event = self._previous.heard(live, event)
        state, effects = step(live.state, event, self.now + live.skew)
        self.steps += len(live.rows)
        self.stepped += 1
        if self._cuts and not self.fleet.healed and self._draw() < self.scenario.faults.power_cuts:
            self._cut(live, state, effects)
            return
        live.state = live.stored = state
        for effect in effects:
            self._effects[type(effect)](live, effect)
        if not live.stays and settled(state, self.now + live.skew):
            self._fold(live)

    def _cut(self, live: Live, state: AgentState, effects: tuple[do.Effect, ...]) -> None:
        """The power goes: before the state is saved, or after it and some of the effects."""
        self.faults["power_cuts"] += 1
        done = int(self._draw() * (len(effects) + 1)) - 1
        if done >= 0:
            live.stored = state
            live.state = state
            for effect in effects[:done]:
                self._effects[type(effect)](live, effect)
            if self.fleet.dead[live.row]:
                return  # what it activated has bricked it: no power brings it back
        live.life += 1
        live.held = None
        live.pid += 1
        live.timer_at = live.pushed_at = float("inf")
        self.serving[live.rows] = _NONE
        self.hub.trace.rows(self.now, "power cut", live.rows, live.state.stage.value)
        self.agenda.put(self.now + 5.0 + 60.0 * self._draw(), _BOOTS, live)

    def _boot(self, live: Live) -> None:
        stored = live.stored
        names: tuple[SlotName, ...] = ("a", "b")
        whole: list[SlotName] = [name for name in names if slot(stored, name).held is not None]
        lost = self.scenario.faults.lost_writes
        if lost and not self.fleet.healed and self._draw() < lost:
            idle = [name for name in whole if name != stored.active]
            whole = [name for name in whole if name not in idle]
            live.came = 0.0
            self.faults["lost_writes"] += len(idle)
        live.state = msgspec.structs.replace(stored, soft=Soft())
        live.life += 1
        self.hub.trace.rows(self.now, "booted", live.rows, stored.stage.value)
        pace = self._panel_pace if live.stays else self._pace
        self._happen(
            live,
            happened.Booted(
                facts=self.fleet.device(live.row),
                whole=tuple(whole),
                pointer=live.pointer,
                serving=None,
                draw=self._draw(),
                pace=pace,
            ),
        )
        self._finish()

    # Effects.

    def _later(self, live: Live, delay_s: float, event: Event) -> None:
        self.agenda.put(self.now + delay_s, _HAPPENED, live, event)

    def _send(self, live: Live, effect: do.SendCheckIn) -> None:
        said = self._previous.said(live, effect.check_in)
        if not self.fleet.up(live.row, self.now):
            self._unanswered(live, said, "unreachable")
        elif self._rough and not self.fleet.healed:
            self._send_roughly(live, said)
        else:
            self._ask(live, said, waits=True)

    def _send_roughly(self, live: Live, said: CheckIn) -> None:
        """Over a link that loses, doubles and reorders."""
        faults, draw = self.scenario.faults, self._draw
        if draw() < faults.loss:
            self.faults["loss"] += 1
            self._unanswered(live, said, "timeout")
            return
        delay_s = 0.02
        if draw() < faults.reordering:
            self.faults["reordering"] += 1
            delay_s += 20.0 * draw()
        if delay_s > ANSWER_TIMEOUT_S:
            self._unanswered(live, said, "timeout")
        self.agenda.put(self.now + delay_s, _ARRIVES, live, (said, delay_s <= ANSWER_TIMEOUT_S))
        if draw() < faults.doubling:
            self.faults["doubling"] += 1
            self.agenda.put(self.now + delay_s + 5.0 * draw(), _ARRIVES, live, (said, False))

    def _arrive(self, live: Live, payload: tuple[CheckIn, bool]) -> None:
        said, waits = payload
        if waits and self._draw() < self.scenario.faults.loss and not self.fleet.healed:
            self.faults["loss"] += 1
            self.hub.check_in(live.rows, said, self.now)
            self._unanswered(live, said, "timeout")
        else:
            self._ask(live, said, waits=waits)

    def _ask(self, live: Live, said: CheckIn, *, waits: bool) -> None:
        answers = self.hub.check_in(live.rows, said, self.now)
        if not waits:
            return
        delay_s = 0.05 + 0.2 * self._draw()
        heard = [(self._heard(said.seq, answer), rows) for answer, rows in answers]
        if len(heard) == 1:
            self._later(live, delay_s, heard[0][0])
        else:
            self.agenda.put(self.now + delay_s, _ANSWERED, live, heard)

    def _heard(self, seq: int, answer: CheckInAnswer | Failed) -> Event:
        draw = self._draw()
        if isinstance(answer, Failed):
            return happened.CheckInFailed(
                seq=seq, code=answer.code, draw=draw, next_seq=answer.next_seq
            )
        return happened.CheckInAnswered(seq=seq, answer=answer, draw=draw)

    def _unanswered(self, live: Live, said: CheckIn, code: str) -> None:
        event = happened.CheckInFailed(seq=said.seq, code=code, draw=self._draw())
        self._later(live, ANSWER_TIMEOUT_S, event)

    def _fetch_manifest(self, live: Live, effect: do.FetchManifest) -> None:
        if self.hub.down_until or not self.fleet.up(live.row, self.now):
            self._work_failed(live, effect.job, "unreachable")
            return
        made, sha256 = self._manifests[effect.sha256]
        self._later(
            live,
            0.1 + 0.2 * self._draw(),
            happened.ManifestOpened(job=effect.job, sha256=sha256, manifest=made),
        )

    def _fetch(self, live: Live, effect: do.Fetch) -> None:
        now, row = self.now, live.row
        if self.hub.down_until or not self.fleet.up(row, now):
            self._work_failed(live, effect.job, "unreachable")
        elif not self.fleet.room(row, now):
            self.faults["disk_full"] += 1
            self._work_failed(live, effect.job, "disk_full")
        else:
            takes_s = (effect.artifact.size_bytes - live.came) / live.bytes_s
            breaks_s = self._link_holds_s(row)
            if takes_s > breaks_s:
                live.came += breaks_s * live.bytes_s
                self._work_failed(live, effect.job, "connection_lost", breaks_s)
            else:
                live.came = 0.0
                self._later(live, takes_s + 0.05, happened.Fetched(job=effect.job))

    def _link_holds_s(self, row: int) -> float:
        """Seconds until a flapping link goes down."""
        fleet = self.fleet
        up_s: float = fleet.up_s.item(row)
        if fleet.healed or up_s == float("inf"):
            return float("inf")
        cycle: float = up_s + fleet.down_s.item(row)
        return up_s - (self.now + fleet.shift_s.item(row)) % cycle

    def _work_failed(self, live: Live, job: int, code: str, after_s: float = 1.0) -> None:
        draw = self._draw()
        self._later(live, after_s, happened.WorkFailed(job=job, code=code, detail="", draw=draw))

    def _prove(self, live: Live, effect: do.Prove) -> None:
        new = effect.held.release == NEW
        fails = new and refuses(live.luck, self.scenario.release)
        truth, least = self.scenario.release, effect.held.golden.min_accuracy
        proof = _NOT_PROVED if fails else figures.proof(effect.held.release, truth, least)
        self._later(live, 2.0 + 2.0 * self._draw(), happened.Proved(job=effect.job, result=proof))

    def _stop_work(self, live: Live, effect: do.StopWork) -> None:
        """Its completion comes all the same, and the core takes no notice."""

    def _activate(self, live: Live, effect: do.Activate) -> None:
        mine = effect.held
        if live.held is not mine:
            live.held = mine
            live.swapped_at = self.now
            state = live.state
            attempt = state.attempt
            way = "restore" if effect.slot == state.active or attempt is None else attempt.action
            self.serving[live.rows] = NUMBERS[mine.release]
            self.hub.trace.rows(self.now, "activated", live.rows, mine.release)
            if self.witnesses is not None:
                for hear in self.witnesses.activated:
                    hear(live.rows, mine.release, way, self.now)
            truth = self.scenario.release
            if mine.release == NEW and bricks(live.luck, truth):
                self._lose(live)
                return
            self._attend(live, burning=mine.release == NEW and burns(live.luck, truth))
        status = live.status(self.now, _HARMLESS)
        if status is None:
            raise AssertionError(live.row)
        self._later(live, 0.5, happened.Activated(job=effect.job, status=status))

    def _attend(self, live: Live, *, burning: bool) -> None:
        """One whose service will go wrong reports all the time from now on, so that it is heard."""
        stays = burning or bool(self.fleet.panel[live.row])
        if stays is not live.stays:
            live.stays = stays
            pace = self._panel_pace if stays else self._pace
            live.state = msgspec.structs.replace(live.state, pace=pace)

    def _lose(self, live: Live) -> None:
        """The device is never heard of again."""
        self.faults["bricks"] += len(live.rows)
        self.fleet.dead[live.rows] = True
        live.life = _LOST
        del self.live[live]

    def _stop_serving(self, live: Live, effect: do.StopServing) -> None:  # noqa: ARG002 - as all effects
        live.held = None
        live.pid += 1
        self.serving[live.rows] = _NONE
        gone = happened.ServingSeen(status=None, alive=False, draw=self._draw())
        self._soon.append((live, live.life, gone))

    def _probe(self, live: Live, effect: do.Probe) -> None:  # noqa: ARG002 - as all effects
        status = live.status(self.now, self.scenario.release)
        if status is None:
            self.serving[live.rows] = _NONE
        seen = happened.ServingSeen(status=status, alive=status is not None, draw=self._draw())
        self._soon.append((live, live.life, seen))

    def _move_pointer(self, live: Live, effect: do.MovePointer) -> None:
        live.pointer = effect.slot

    def _remove_slot(self, live: Live, effect: do.RemoveSlot) -> None:  # noqa: ARG002 - as all effects
        live.came = 0.0

    def _set_timer(self, live: Live, effect: do.SetTimer) -> None:
        at = effect.at - live.skew
        while at + live.skew < effect.at:  # rounded: by its own clock it would still be too early
            at = math.nextafter(at, math.inf)
        self._at(live, at)

    def _at(self, live: Live, at: float) -> None:
        """See that the core looks again at ``at``."""
        live.timer_at = at
        at = max(at, self.now)
        if live.pushed_at > at:
            live.pushed_at = at
            self.agenda.put(at, _TIMER, live)
