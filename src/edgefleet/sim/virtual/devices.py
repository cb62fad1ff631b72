"""All devices of a run: idle devices are rows of numbers, active ones have real agent cores.

This module has the lifecycle of the cores: wake, step, power cut, boot and becoming idle.
``Uplink``, ``StagingJobs`` and ``ServingProcesses`` execute effects on links, disks and processes.
Equal devices share one core and its random draws, until the hub answers some of them differently.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.agent.state import (
    AgentState,
    InstalledRelease,
    ModelState,
    Slot,
    SlotName,
    Soft,
    active_release,
    pointer,
    slot,
)
from edgefleet.agent.step import step
from edgefleet.agent.table import IN_TRIAL, Stage
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.rollout.fleet.columns import Rows
from edgefleet.sim.virtual import telemetry as figures
from edgefleet.sim.virtual.active_device import ActiveDevice, Served
from edgefleet.sim.virtual.environment import NUMBERS, Environment
from edgefleet.sim.virtual.event_queue import ANSWERED, ARRIVES, BOOTS, HAPPENED, TIMER, Due
from edgefleet.sim.virtual.folded_state import parted, settled
from edgefleet.sim.virtual.idle_devices import IdleDevices
from edgefleet.sim.virtual.observer import Switches
from edgefleet.sim.virtual.releases import installed_release
from edgefleet.sim.virtual.scenario import OLD_TRUTH
from edgefleet.sim.virtual.serving import ServingProcesses
from edgefleet.sim.virtual.staging import StagingJobs
from edgefleet.sim.virtual.uplink import Uplink

_SWITCHING: Final = IN_TRIAL | {Stage.REVERTING}
_LOST: Final = -1  # the life of a dead device: it gets no event


class Devices:
    """``live`` has the active devices. All other devices are in ``idle``."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.idle = IdleDevices(environment)
        self.events = 0  # events of the queue, counted for each device
        self.steps = 0  # of agent cores, counted for each device
        self.stepped = 0  # counted once for a group of devices
        self.live: dict[ActiveDevice, None] = {}
        self._power_cuts = environment.scenario.faults.power_cuts
        self._installed_of: dict[tuple[str, str, str], InstalledRelease] = {}
        self._uplink = Uplink(environment)
        self._work = StagingJobs(environment)
        self._processes = ServingProcesses(environment, self._lose)
        self._effects: dict[type, Callable[[ActiveDevice, Any], None]] = {
            do.SendCheckIn: self._uplink.send,
            do.FetchManifest: self._work.fetch_manifest,
            do.Fetch: self._work.fetch,
            do.Prove: self._work.prove,
            do.CancelStaging: self._work.stop,
            do.RemoveSlot: self._work.remove,
            do.Apply: self._processes.activate,
            do.StopServing: self._processes.stop,
            do.Probe: self._processes.probe,
            do.MovePointer: self._processes.move_pointer,
            do.GiveTruth: lambda _live, _effect: None,  # its facts say that it takes no labels
            do.SetTimer: self._set_timer,
        }

    # The fleet.

    def publish(self, made: ReleaseManifest, sha256: str) -> None:
        """Make a release available to the devices."""
        self._work.publish(made, sha256)
        for profile in self.environment.scenario.fleet.profiles:
            key = (made.model, made.release, profile)
            self._installed_of[key] = installed_release(made, sha256, profile)

    def install(self, release: str) -> None:
        """Install ``release`` of its models, confirmed, on all devices that exist at the start."""
        environment, facts = self.environment, self.environment.facts
        every = np.arange(facts.devices)
        subsets = facts.subset[: facts.devices]
        for rows in parted(every, (facts.kinds(every), facts.panel[every], subsets)):
            self.idle.rest(rows, self._installed(int(rows[0]), release))
        for model, has in facts.has.items():
            environment.serving[model][: facts.devices][has[: facts.devices]] = NUMBERS[release]
        interval_s = environment.scenario.fleet.interval_s
        for row in np.flatnonzero(facts.panel).tolist():
            self._wake(np.array([row]), environment.now + environment.draw() * interval_s)

    def _installed(self, row: int, release: str) -> AgentState:
        """The state of a device on which ``release`` of each of its models is confirmed."""
        facts = self.environment.facts
        device = facts.device(row)
        models: dict[str, ModelState] = {}
        for model, has in facts.has.items():
            if has[row]:
                mine = Slot(
                    installed=self._installed_of[model, release, device.profile],
                    proved=True,
                    confirmed=True,
                    accuracy=figures.truth_of(
                        release, self.environment.truths.get(model, OLD_TRUTH)
                    ).accuracy,
                )
                models[model] = ModelState(active="a", a=mine)
        return AgentState(
            models=models,
            facts=device,
            facts_known=True,
            interval_s=self.environment.scenario.fleet.interval_s,
            pace=self.environment.pace(stays=bool(facts.panel[row])),
            seq_reserved=1024,
        )

    def enrol(self, row: int) -> None:
        """Enrol a new device without a release."""
        environment, facts = self.environment, self.environment.facts
        environment.hub.enrol(facts.name(row), facts.device(row).profile, facts.labels(row))
        new = AgentState(interval_s=environment.scenario.fleet.interval_s)
        self._boot(self._alive(np.array([row]), new))

    # Transitions between idle and active.

    def sweep(self, second: int) -> None:
        """Check in the idle devices of this second, and wake those with a new answer."""
        for rows in self.idle.check_in(second):
            self._wake(rows, self.environment.now)

    def _wake(self, rows: Rows, at: float) -> None:
        environment, row = self.environment, int(rows[0])
        state = self.idle.state(rows, at + environment.facts.skew.item(row))
        live = self._alive(rows, state)
        live.pointer = pointer(state.models)
        confirmed = _confirmed(state)
        since = environment.now - 3600.0
        live.served = {
            installed.model: Served(installed, installed, on_trial=False, since=since)
            for installed in confirmed
        }
        live.state = figures.reminded(state, confirmed, environment.truths)
        environment.schedule_timer(live, at)

    def _alive(self, rows: Rows, state: AgentState) -> ActiveDevice:
        row, facts = int(rows[0]), self.environment.facts
        live = ActiveDevice(rows, state, facts.luck.item(row))
        live.skew = facts.skew.item(row)
        live.requests_s = self.environment.scenario.fleet.requests_s
        live.bytes_s = facts.bytes_s(row)
        live.stays = bool(facts.panel[row])
        live.one_model = bool(facts.one_model[row])
        self.live[live] = None
        self.idle.wake(rows)
        return live

    def _fold(self, live: ActiveDevice) -> None:
        self.idle.rest(live.rows, live.state)
        live.life += 1
        del self.live[live]

    # Active devices.

    def due(self, due: Due, live: ActiveDevice, life: int, payload: Any) -> None:
        """Handle one event of the queue, which was scheduled in the life ``life``."""
        for part in live.whole() if live.parts else (live,):
            if part.life == life != _LOST:
                self.events += len(part.rows)
                self._due(due, part, payload)

    def _due(self, due: Due, live: ActiveDevice, payload: Any) -> None:
        if due is HAPPENED:
            self._happen(live, payload)
        elif due is TIMER:
            environment = self.environment
            if live.pushed_at != environment.now:
                return  # an earlier timer was set since
            live.pushed_at = float("inf")
            if live.timer_at > environment.now:
                environment.schedule_timer(live, live.timer_at)
            else:
                self._happen(live, happened.TimerFired(draw=environment.draw()))
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
        """Give the cores the results of effects that ended at once."""
        soon = self._processes.soon
        while soon:
            live, life, event = soon.popleft()
            for part in live.whole():
                if part.life == life != _LOST:
                    self._happen(part, event)

    def _happen(self, live: ActiveDevice, event: Event) -> None:
        """Step a core, store its state, then execute its effects in order, or cut the power."""
        environment = self.environment
        if environment.hub.witnesses is not None:
            for hear in environment.hub.witnesses.stepped:
                hear(live.rows, event, environment.now)
        state, effects = step(live.state, event, environment.now + live.skew)
        self.steps += len(live.rows)
        self.stepped += 1
        cuts = self._power_cuts
        if cuts and not environment.facts.healed and environment.draw() < cuts:
            self._cut(live, state, effects)
            return
        before, live.state, live.stored = live.state, state, state
        for effect in effects:
            self._effects[type(effect)](live, effect)
        if len(state.models) > 1 and environment.hub.witnesses is not None:
            self._show_switches(live, before)
        if not live.stays and settled(state, environment.now + live.skew):
            self._fold(live)

    def _show_switches(self, live: ActiveDevice, before: AgentState) -> None:
        """Show the checkers the models in trial or going back, if there are several."""
        models, environment = live.state.models, self.environment
        switching = {name for name, model in models.items() if model.stage in _SWITCHING}
        on_trial = {name for name, own in live.served.items() if own.on_trial}
        if len(switching | on_trial) < 2 or environment.hub.witnesses is None:
            return
        mine = {name for name in switching if _is_trial(models[name])}
        switches = Switches(
            trials=frozenset(mine | on_trial),
            returns=frozenset(switching - mine - on_trial),
            began=frozenset(
                name
                for name in mine
                if name not in before.models or not _is_trial(before.models[name])
            ),
        )
        for hear in environment.hub.witnesses.switching:
            hear(live.rows, switches, environment.now)

    def _cut(self, live: ActiveDevice, state: AgentState, effects: tuple[do.Effect, ...]) -> None:
        """Cut the power before the state is stored, or after it and some of the effects."""
        environment = self.environment
        environment.suffered["power_cuts"] += 1
        done = int(environment.draw() * (len(effects) + 1)) - 1
        if done >= 0:
            live.stored = state
            live.state = state
            for effect in effects[:done]:
                self._effects[type(effect)](live, effect)
            if environment.facts.dead[live.row]:
                return  # the activated release has bricked the device: it never boots again
        live.life += 1
        live.end_process()
        live.timer_at = live.pushed_at = float("inf")
        environment.stop_serving(live.rows)
        environment.hub.trace.rows(environment.now, "power cut", live.rows, _stages(live.state))
        environment.queue.put(environment.now + 5.0 + 60.0 * environment.draw(), BOOTS, live)

    def _boot(self, live: ActiveDevice) -> None:
        environment, stored = self.environment, live.stored
        names: tuple[SlotName, ...] = ("a", "b")
        whole: dict[str, tuple[SlotName, ...]] = {
            model: tuple(name for name in names if slot(mine, name).installed is not None)
            for model, mine in stored.models.items()
        }
        lost = environment.scenario.faults.lost_writes
        if lost and not environment.facts.healed and environment.draw() < lost:
            for model, mine in stored.models.items():
                kept = (mine.active,) if mine.active is not None else ()
                environment.suffered["lost_writes"] += len(set(whole[model]) - set(kept))
                whole[model] = kept
            live.came = {}
        live.state = msgspec.structs.replace(stored, soft=Soft())
        live.life += 1
        environment.hub.trace.rows(environment.now, "booted", live.rows, _stages(stored))
        self._happen(
            live,
            happened.Booted(
                facts=environment.facts.device(live.row),
                whole=whole,
                pointer=live.pointer,
                serving=None,
                draw=environment.draw(),
                pace=environment.pace(stays=live.stays),
            ),
        )
        self._finish()

    def _lose(self, live: ActiveDevice) -> None:
        """The devices are bricked: they never check in again."""
        self.environment.suffered["bricks"] += len(live.rows)
        self.environment.facts.dead[live.rows] = True
        live.life = _LOST
        del self.live[live]

    def _set_timer(self, live: ActiveDevice, effect: do.SetTimer) -> None:
        self.environment.schedule_timer(live, live.true_time(effect.at))


def _confirmed(state: AgentState) -> list[InstalledRelease]:
    """The confirmed releases, by model."""
    models = (active_release(state.models[name]) for name in sorted(state.models))
    return [installed for installed in models if installed is not None]


def _is_trial(model: ModelState) -> bool:
    attempt = model.attempt
    return model.stage in IN_TRIAL and attempt is not None and attempt.action == "install"


def _stages(state: AgentState) -> str:
    """The stages of the models, for the trace."""
    return ", ".join(mine.stage.value for mine in state.models.values()) or "no model"
