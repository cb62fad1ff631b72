"""The serving processes of active devices: activation, probes and stops."""

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.sim.virtual.active_device import ActiveDevice, bricks, burns
from edgefleet.sim.virtual.environment import NOTHING, NUMBERS, Environment
from edgefleet.sim.virtual.scenario import NEW, Truth

_HARMLESS: Final = Truth()


class ServingProcesses:
    """One serving process per device. ``lose`` is called for devices that a release bricks.

    ``soon`` has the results of effects that ended at once. A core gets them after its step.
    """

    def __init__(self, environment: Environment, lose: Callable[[ActiveDevice], None]) -> None:
        self.soon: deque[tuple[ActiveDevice, int, Event]] = deque()
        self._environment = environment
        self._lose = lose

    def activate(self, live: ActiveDevice, effect: do.Apply) -> None:
        (model,) = effect.models
        wanted = do.routed(model)
        environment, mine = self._environment, wanted.installed
        live.on_trial = model.trial is not None
        live.incumbent = model.confirmed.installed if model.confirmed else None
        truth = environment.scenario.release
        status = live.status(environment.now, truth) if live.installed is mine else None
        if status is None:
            self._swap(live, wanted)
            new = mine.release == NEW
            if new and bricks(live.luck, truth):
                self._lose(live)
                return
            self._attend(live, burning=new and burns(live.luck, truth))
            status = live.status(environment.now, _HARMLESS)
        if status is None:
            raise AssertionError(live.row)
        environment.later(live, 0.5, happened.Activated(job=effect.job, status=status))

    def stop(self, live: ActiveDevice, effect: do.StopServing) -> None:  # noqa: ARG002 - the signature of all effects
        live.installed = None
        live.pid += 1
        self._environment.serving[live.rows] = NOTHING
        gone = happened.ServingProbed(status=None, alive=False, draw=self._environment.draw())
        self.soon.append((live, live.life, gone))

    def probe(self, live: ActiveDevice, effect: do.Probe) -> None:  # noqa: ARG002 - the signature of all effects
        environment = self._environment
        status = live.status(environment.now, environment.scenario.release)
        if live.installed is None:
            environment.serving[live.rows] = NOTHING
        alive = status is not None
        probed = happened.ServingProbed(status=status, alive=alive, draw=environment.draw())
        self.soon.append((live, live.life, probed))

    def move_pointer(self, live: ActiveDevice, effect: do.MovePointer) -> None:
        live.pointer = effect.slots

    def _swap(self, live: ActiveDevice, wanted: do.WantedRelease) -> None:
        environment, release = self._environment, wanted.installed.release
        live.installed = wanted.installed
        live.swapped_at = environment.now
        state = live.state.models[wanted.installed.model]
        attempt = state.attempt
        way = "restore" if wanted.slot == state.active or attempt is None else attempt.action
        environment.serving[live.rows] = NUMBERS[release]
        environment.hub.trace.rows(environment.now, "activated", live.rows, release)
        if environment.hub.witnesses is not None:
            for hear in environment.hub.witnesses.activated:
                hear(live.rows, release, way, environment.now)

    def _attend(self, live: ActiveDevice, *, burning: bool) -> None:
        """Keep a device active if its release fails later, so that it reports the failure."""
        stays = burning or bool(self._environment.facts.panel[live.row])
        if stays is not live.stays:
            live.stays = stays
            pace = self._environment.pace(stays=stays)
            live.state = msgspec.structs.replace(live.state, pace=pace)
