"""The serving processes of active devices: activation, probes and stops."""

from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.agent.state import slot
from edgefleet.sim.virtual.active_device import (
    ActiveDevice,
    Served,
    bricks,
    burns,
    ends,
    luck_with,
)
from edgefleet.sim.virtual.environment import NOTHING, NUMBERS, Environment
from edgefleet.sim.virtual.scenario import NEW, Truth


class ServingProcesses:
    """One serving process per device. ``lose`` is called for devices that a release bricks.

    ``soon`` has the results of effects that ended at once. A core gets them after its step.
    """

    def __init__(self, environment: Environment, lose: Callable[[ActiveDevice], None]) -> None:
        self.soon: deque[tuple[ActiveDevice, int, Event]] = deque()
        self._environment = environment
        self._lose = lose

    def activate(self, live: ActiveDevice, effect: do.Apply) -> None:
        """Serve the wanted set. Models that are served already go on without a break."""
        environment, before = self._environment, live.served
        served: dict[str, Served] = {}
        swapped: list[do.WantedRelease] = []
        for wanted in effect.models:
            routed, own = do.routed(wanted), before.get(wanted.model)
            incumbent = wanted.confirmed.installed if wanted.confirmed else None
            if own is None or own.installed is not routed.installed or own.ended:
                own = Served(routed.installed, incumbent, wanted.trial is not None, environment.now)
                swapped.append(routed)
            elif own.on_trial is not (wanted.trial is not None):
                own = own._replace(on_trial=wanted.trial is not None, incumbent=incumbent)
            served[wanted.model] = _with_shadow(own, wanted.shadow, environment.now)
        live.served = served
        self._drop(live, {name: own for name, own in before.items() if name not in served})
        for routed in swapped:
            self._swap(live, routed)
        if any(self._is_new(live, one, bricks) for one in swapped):
            self._lose(live)
            return
        wanted_releases = map(do.routed, effect.models)
        late = any(
            self._is_new(live, one, fate) for one in wanted_releases for fate in (burns, ends)
        )
        self._attend(live, fails_later=late)
        status = live.status(environment.now, environment.truths, environment.traffic, crash=False)
        if status is None:
            raise AssertionError(live.row)
        environment.later(live, 0.5, happened.Activated(job=effect.job, status=status))

    def stop(self, live: ActiveDevice, effect: do.StopServing) -> None:  # noqa: ARG002 - the signature of all effects
        environment, before = self._environment, live.served
        live.end_process()
        self._drop(live, before)
        environment.stop_serving(live.rows)
        gone = happened.ServingProbed(status=None, alive=False, draw=environment.draw())
        self.soon.append((live, live.life, gone))

    def probe(self, live: ActiveDevice, effect: do.Probe) -> None:  # noqa: ARG002 - the signature of all effects
        environment = self._environment
        ran = live.ending(environment.now, environment.truths)
        if ran:
            live.end_process()
        status = live.status(environment.now, environment.truths, environment.traffic)
        if status is None:
            environment.stop_serving(live.rows)
        for model, own in live.served.items():
            if own.ended:
                number = NUMBERS[own.installed.release] if own.installed else NOTHING
                environment.serving[model][live.rows] = number
        alive = status is not None
        probed = happened.ServingProbed(
            status=status,
            alive=alive,
            draw=environment.draw(),
            board=live.board(environment.now - environment.start, environment.truths),
            ran=ran,
            ends=("SIGSEGV",) if ran else (),
        )
        self.soon.append((live, live.life, probed))

    def move_pointer(self, live: ActiveDevice, effect: do.MovePointer) -> None:
        environment, before, live.pointer = self._environment, live.pointer, effect.slots
        if environment.hub.witnesses is None or before == effect.slots:
            return
        for model, name in effect.slots.items():
            installed = slot(live.state.models[model], name).installed
            if before.get(model) != name and installed is not None:
                for hear in environment.hub.witnesses.confirmed:
                    hear(live.rows, model, installed.release, environment.now)

    def _is_new(
        self, live: ActiveDevice, wanted: do.WantedRelease, fate: Callable[[float, Truth], bool]
    ) -> bool:
        """Whether the release is new, and has this fate on the device."""
        model, truths = wanted.installed.model, self._environment.truths
        is_new = wanted.installed.release == NEW
        return is_new and fate(luck_with(model, live.luck), truths[model])

    def _drop(self, live: ActiveDevice, dropped: Mapping[str, Served]) -> None:
        """The process does not serve these models any more."""
        environment = self._environment
        for model, own in dropped.items():
            environment.serving[model][live.rows] = NOTHING
            if environment.hub.witnesses is not None:
                for hear in environment.hub.witnesses.dropped:
                    hear(live.rows, model, environment.now, on_trial=own.on_trial)

    def _swap(self, live: ActiveDevice, wanted: do.WantedRelease) -> None:
        environment, installed = self._environment, wanted.installed
        model, release = installed.model, installed.release
        state = live.state.models[model]
        attempt = state.attempt
        way = "restore" if wanted.slot == state.active or attempt is None else attempt.action
        environment.serving[model][live.rows] = NUMBERS[release]
        environment.hub.trace.rows(environment.now, "activated", live.rows, f"{model} {release}")
        if environment.hub.witnesses is not None:
            for hear in environment.hub.witnesses.activated:
                hear(live.rows, model, release, way, environment.now)

    def _attend(self, live: ActiveDevice, *, fails_later: bool) -> None:
        """Keep a device active if its release fails later, so that it reports the failure."""
        stays = fails_later or bool(self._environment.facts.panel[live.row])
        if stays is not live.stays:
            live.stays = stays
            pace = self._environment.pace(stays=stays)
            live.state = msgspec.structs.replace(live.state, pace=pace)


def _with_shadow(own: Served, wanted: do.WantedShadow | None, now: float) -> Served:
    """The model with the wanted candidate. One that is loaded already keeps its counters."""
    candidate = None if wanted is None else wanted.release.installed
    if wanted is None or candidate is None:
        return own if own.shadow is None else own._replace(shadow=None)
    if own.shadow is candidate:
        return own
    return own._replace(shadow=candidate, shadow_share=wanted.share, shadow_since=now)
