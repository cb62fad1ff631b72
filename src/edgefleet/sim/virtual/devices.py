"""All devices of a run: rows of numbers while nothing happens, real agent cores when it does.

Here is the life of the cores: they wake, step, lose their power, boot and rest. What they ask for
is done by ``Uplink``, ``Work`` and ``Processes``, on virtual links, disks and services, with their
faults. Devices that go together draw as one, until the hub tells some of them something else.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.agent.state import AgentState, InstalledRelease, Slot, SlotName, Soft, slot
from edgefleet.agent.step import step
from edgefleet.protocol.device import Facts
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual import telemetry as figures
from edgefleet.sim.virtual.active_device import Live
from edgefleet.sim.virtual.environment import NOTHING, NUMBERS, Outside
from edgefleet.sim.virtual.event_queue import ANSWERED, ARRIVES, BOOTS, HAPPENED, TIMER, Due
from edgefleet.sim.virtual.folded_state import parted, settled
from edgefleet.sim.virtual.idle_devices import Idle
from edgefleet.sim.virtual.legacy_agent import Previous
from edgefleet.sim.virtual.releases import installed
from edgefleet.sim.virtual.scenario import MODEL
from edgefleet.sim.virtual.serving import Processes
from edgefleet.sim.virtual.staging import Work
from edgefleet.sim.virtual.uplink import Uplink

_NO_RELEASE: Final = 0  # of the hub's numbers
_LOST: Final = -1  # the life in which nothing happens any more


class Crowd:
    """``live`` are the cores that have something to do; all other devices are in ``idle``."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.idle = Idle(outside)
        self.events = 0  # entries of the agenda, counted for each device
        self.steps = 0  # of agent cores, counted for each device
        self.stepped = 0  # counted once for devices that went together
        self.live: dict[Live, None] = {}
        self._power_cuts = outside.scenario.faults.power_cuts
        self._variants: dict[tuple[str, str], InstalledRelease] = {}
        self._previous = Previous(outside.facts.previous)
        self._uplink = Uplink(outside, self._previous)
        self._work = Work(outside)
        self._processes = Processes(outside, self._lose)
        self._effects: dict[type, Callable[[Live, Any], None]] = {
            do.SendCheckIn: self._uplink.send,
            do.FetchManifest: self._work.fetch_manifest,
            do.Fetch: self._work.fetch,
            do.Prove: self._work.prove,
            do.CancelStaging: self._work.stop,
            do.RemoveSlot: self._work.remove,
            do.Activate: self._processes.activate,
            do.StopServing: self._processes.stop,
            do.Probe: self._processes.probe,
            do.MovePointer: self._processes.move_pointer,
            do.SetTimer: self._set_timer,
        }

    # The fleet.

    def know(self, made: ReleaseManifest, sha256: str) -> None:
        """A release that devices may be offered."""
        self._work.know(made, sha256)
        for profile in self.outside.scenario.fleet.profiles:
            self._variants[made.release, profile] = installed(made, sha256, profile)

    def install(self, release: str) -> None:
        """All devices that are there from the start run ``release``, confirmed."""
        outside, facts = self.outside, self.outside.facts
        number = outside.hub.engine.fleet.release_id(MODEL, release)
        every = np.arange(facts.devices)
        accuracy = figures.truth_of(release, outside.scenario.release).accuracy
        for rows in parted(every, (facts.kinds(every), facts.panel[every])):
            row = int(rows[0])
            device = facts.device(row)
            mine = Slot(
                installed=self._variants[release, device.profile],
                proved=True,
                confirmed=True,
                accuracy=accuracy,
            )
            self.idle.rest(rows, self._installed(device, row, mine), number)
        outside.serving[: facts.devices] = NUMBERS[release]
        interval_s = outside.scenario.fleet.interval_s
        for row in np.flatnonzero(facts.panel).tolist():
            self._wake(np.array([row]), outside.now + outside.draw() * interval_s)

    def _installed(self, facts: Facts, row: int, mine: Slot) -> AgentState:
        return AgentState(
            active="a",
            a=mine,
            facts=facts,
            facts_known=True,
            interval_s=self.outside.scenario.fleet.interval_s,
            pace=self.outside.pace(stays=bool(self.outside.facts.panel[row])),
            seq_reserved=1024,
        )

    def enrol(self, row: int) -> None:
        """A device comes new, without any release."""
        outside, facts = self.outside, self.outside.facts
        outside.hub.enrol(facts.name(row), facts.device(row).profile, facts.labels(row))
        new = AgentState(interval_s=outside.scenario.fleet.interval_s)
        self._boot(self._alive(np.array([row]), new))

    # From idle to busy, and back.

    def sweep(self, second: int) -> None:
        """Let the idle devices of this second check in, and wake those who are told something."""
        for rows in self.idle.told(second):
            self._wake(rows, self.outside.now)

    def _wake(self, rows: Rows, at: float) -> None:
        outside, row = self.outside, int(rows[0])
        state = self.idle.state(row, at + outside.facts.skew.item(row))
        live = self._alive(rows, state)
        live.pointer = state.active
        if state.active is not None:
            live.installed = slot(state, state.active).installed
            live.swapped_at = outside.now - 3600.0
            live.state = figures.reminded(state, live.installed, outside.scenario.release)
        outside.look(live, at)

    def _alive(self, rows: Rows, state: AgentState) -> Live:
        row, facts = int(rows[0]), self.outside.facts
        live = Live(rows, state, facts.luck.item(row))
        live.skew = facts.skew.item(row)
        live.requests_s = self.outside.scenario.fleet.requests_s
        live.bytes_s = facts.bytes_s(row)
        live.stays = bool(facts.panel[row])
        self.live[live] = None
        self.idle.leave(rows)
        return live

    def _fold(self, live: Live) -> None:
        state = live.state
        mine = slot(state, state.active).installed if state.active else None
        fleet = self.outside.hub.engine.fleet
        number = fleet.release_id(MODEL, mine.release) if mine else _NO_RELEASE
        self.idle.rest(live.rows, state, number)
        live.life += 1
        del self.live[live]

    # Busy devices.

    def due(self, due: Due, live: Live, life: int, payload: Any) -> None:
        """One entry of the agenda, put there in the life of that number."""
        for part in live.whole() if live.parts else (live,):
            if part.life == life != _LOST:
                self.events += len(part.rows)
                self._due(due, part, payload)

    def _due(self, due: Due, live: Live, payload: Any) -> None:
        if due is HAPPENED:
            self._happen(live, payload)
        elif due is TIMER:
            outside = self.outside
            if live.pushed_at != outside.now:
                return  # an earlier one was asked for since
            live.pushed_at = float("inf")
            if live.timer_at > outside.now:
                outside.look(live, live.timer_at)
            else:
                self._happen(live, happened.TimerFired(draw=outside.draw()))
        elif due is ARRIVES:
            self._uplink.arrive(live, payload)
        elif due is ANSWERED:
            parts = live.part(tuple(rows for _, rows in payload))
            del self.live[live]
            self.live.update(dict.fromkeys(parts))
            for part, (event, _) in zip(parts, payload, strict=True):
                self._happen(part, event)
        elif due is BOOTS:
            self._boot(live)
        else:
            raise AssertionError(due)
        self._finish()

    def _finish(self) -> None:
        """Tell cores what came to its end at once."""
        soon = self._processes.soon
        while soon:
            live, life, event = soon.popleft()
            for part in live.whole():
                if part.life == life != _LOST:
                    self._happen(part, event)

    def _happen(self, live: Live, event: Event) -> None:
        """One step of a core: save, then do its effects in order, unless the power goes."""
        outside = self.outside
        if self._previous.any:
            event = self._previous.heard(live, event)
        state, effects = step(live.state, event, outside.now + live.skew)
        self.steps += len(live.rows)
        self.stepped += 1
        cuts = self._power_cuts
        if cuts and not outside.facts.healed and outside.draw() < cuts:
            self._cut(live, state, effects)
            return
        live.state = live.stored = state
        for effect in effects:
            self._effects[type(effect)](live, effect)
        if not live.stays and settled(state, outside.now + live.skew):
            self._fold(live)

    def _cut(self, live: Live, state: AgentState, effects: tuple[do.Effect, ...]) -> None:
        """The power goes: before the state is saved, or after it and some of the effects."""
        outside = self.outside
        outside.suffered["power_cuts"] += 1
        done = int(outside.draw() * (len(effects) + 1)) - 1
        if done >= 0:
            live.stored = state
            live.state = state
            for effect in effects[:done]:
                self._effects[type(effect)](live, effect)
            if outside.facts.dead[live.row]:
                return  # what it activated has bricked it: no power brings it back
        live.life += 1
        live.installed = None
        live.pid += 1
        live.timer_at = live.pushed_at = float("inf")
        outside.serving[live.rows] = NOTHING
        outside.hub.trace.rows(outside.now, "power cut", live.rows, live.state.stage.value)
        outside.agenda.put(outside.now + 5.0 + 60.0 * outside.draw(), BOOTS, live)

    def _boot(self, live: Live) -> None:
        outside, stored = self.outside, live.stored
        names: tuple[SlotName, ...] = ("a", "b")
        whole: list[SlotName] = [name for name in names if slot(stored, name).installed is not None]
        lost = outside.scenario.faults.lost_writes
        if lost and not outside.facts.healed and outside.draw() < lost:
            idle = [name for name in whole if name != stored.active]
            whole = [name for name in whole if name not in idle]
            live.came = 0.0
            outside.suffered["lost_writes"] += len(idle)
        live.state = msgspec.structs.replace(stored, soft=Soft())
        live.life += 1
        outside.hub.trace.rows(outside.now, "booted", live.rows, stored.stage.value)
        self._happen(
            live,
            happened.Booted(
                facts=outside.facts.device(live.row),
                whole=tuple(whole),
                pointer=live.pointer,
                serving=None,
                draw=outside.draw(),
                pace=outside.pace(stays=live.stays),
            ),
        )
        self._finish()

    def _lose(self, live: Live) -> None:
        """The devices are never heard of again."""
        self.outside.suffered["bricks"] += len(live.rows)
        self.outside.facts.dead[live.rows] = True
        live.life = _LOST
        del self.live[live]

    def _set_timer(self, live: Live, effect: do.SetTimer) -> None:
        at = effect.at - live.skew
        while at + live.skew < effect.at:  # rounded: by its own clock it would still be too early
            at = math.nextafter(at, math.inf)
        self.outside.look(live, at)
