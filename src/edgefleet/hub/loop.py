"""The hub's periodic work: gates, standings, finished rollouts, samples, unneeded artifacts."""

import asyncio
from collections.abc import Awaitable, Callable

from edgefleet.base.clock import Clock
from edgefleet.base.errors import EdgefleetError, Retry
from edgefleet.hub.limits import SNAPSHOT_S, STANDING_FLUSH_S
from edgefleet.hub.metrics import Metrics
from edgefleet.hub.release_counts import ReleaseHistory
from edgefleet.hub.rollout_commands import RolloutCommands
from edgefleet.rollout.fleet.fleet import Fleet


class Loop:
    """Runs the periodic work, one tick after another."""

    def __init__(
        self,
        rollout_commands: RolloutCommands,
        flush: Callable[[], Awaitable[None]],
        save_snapshot: Callable[[], Awaitable[None]],
        collect: Callable[[], Awaitable[None]],
        note_quarantines: Callable[[], Awaitable[None]],
        *,
        history: ReleaseHistory,
        keep_history: Callable[[bytes], None],
        fleet: Fleet,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._rollout_commands = rollout_commands
        self._flush = flush
        self._save_snapshot = save_snapshot
        self._collect = collect
        self._note_quarantines = note_quarantines
        self._history = history
        self._keep_history = keep_history
        self._fleet = fleet
        self._metrics = metrics
        self._clock = clock
        self._flushed = self._snapshot_at = clock.monotonic()

    async def run(self, tick_s: float) -> None:
        """Tick until cancelled. An unexpected error ends the loop, and with it the hub."""
        while True:
            await self.tick()
            await asyncio.sleep(tick_s)

    async def tick(self) -> None:
        """Do the work that is due. If the store is overloaded, the next tick tries again."""
        now = self._clock.now()
        if self._history.due(now):
            self._history.sample(now, self._fleet.figures(now).on_release)
        try:
            await self._rollout_commands.evaluate()
            await self._note_quarantines()
            if self._clock.monotonic() - self._flushed >= STANDING_FLUSH_S:
                await self._flush()
                self._flushed = self._clock.monotonic()
            if self._clock.monotonic() - self._snapshot_at >= SNAPSHOT_S:
                await self._save_snapshot()
                self._snapshot_at = self._clock.monotonic()
            await self._collect()
        except EdgefleetError as error:
            if error.retry is not Retry.LATER:
                raise
            self._metrics.delayed_ticks += 1
