"""The serving processes of busy devices: what is activated, what a look at one says."""

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.event import Event
from edgefleet.sim.virtual.active_device import Live, bricks, burns
from edgefleet.sim.virtual.environment import NOTHING, NUMBERS, Outside
from edgefleet.sim.virtual.scenario import NEW, Truth

_HARMLESS: Final = Truth()


class Processes:
    """One a device. ``lose`` is called for devices that are never heard of again.

    ``soon`` is what came to its end at once: the core that asked hears of it after its effects.
    """

    def __init__(self, outside: Outside, lose: Callable[[Live], None]) -> None:
        self.soon: deque[tuple[Live, int, Event]] = deque()
        self._outside = outside
        self._lose = lose

    def activate(self, live: Live, effect: do.Activate) -> None:
        outside, mine = self._outside, effect.installed
        if live.installed is not mine:
            self._swap(live, effect)
            truth, new = outside.scenario.release, mine.release == NEW
            if new and bricks(live.luck, truth):
                self._lose(live)
                return
            self._attend(live, burning=new and burns(live.luck, truth))
        status = live.status(outside.now, _HARMLESS)
        if status is None:
            raise AssertionError(live.row)
        outside.later(live, 0.5, happened.Activated(job=effect.job, status=status))

    def stop(self, live: Live, effect: do.StopServing) -> None:  # noqa: ARG002 - as all effects
        live.installed = None
        live.pid += 1
        self._outside.serving[live.rows] = NOTHING
        gone = happened.ServingProbed(status=None, alive=False, draw=self._outside.draw())
        self.soon.append((live, live.life, gone))

    def probe(self, live: Live, effect: do.Probe) -> None:  # noqa: ARG002 - as all effects
        outside = self._outside
        status = live.status(outside.now, outside.scenario.release)
        if status is None:
            outside.serving[live.rows] = NOTHING
        alive = status is not None
        seen = happened.ServingProbed(status=status, alive=alive, draw=outside.draw())
        self.soon.append((live, live.life, seen))

    def move_pointer(self, live: Live, effect: do.MovePointer) -> None:
        live.pointer = effect.slot

    def _swap(self, live: Live, effect: do.Activate) -> None:
        outside, release = self._outside, effect.installed.release
        live.installed = effect.installed
        live.swapped_at = outside.now
        state = live.state
        attempt = state.attempt
        way = "restore" if effect.slot == state.active or attempt is None else attempt.action
        outside.serving[live.rows] = NUMBERS[release]
        outside.hub.trace.rows(outside.now, "activated", live.rows, release)
        if outside.hub.witnesses is not None:
            for hear in outside.hub.witnesses.activated:
                hear(live.rows, release, way, outside.now)

    def _attend(self, live: Live, *, burning: bool) -> None:
        """One whose service will go wrong reports all the time from now on, so that it is heard."""
        stays = burning or bool(self._outside.facts.panel[live.row])
        if stays is not live.stays:
            live.stays = stays
            pace = self._outside.pace(stays=stays)
            live.state = msgspec.structs.replace(live.state, pace=pace)
