"""The releases that were confirmed before the present ones: they stay loaded for a fast rollback.

A release that is replaced by the one whose trial has ended well is kept, if as much memory as its
own load takes is free beside it. It is freed after ``PREVIOUS_S``, when another candidate comes (a
shadow or a trial of any model), when a load needs its memory, or with its model.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from edgefleet.base.cgroup import memory_room
from edgefleet.protocol.serving import Apply, ServedRelease
from edgefleet.serving.active_release import Release
from edgefleet.serving.limits import PREVIOUS_S
from edgefleet.serving.memory_budget import decide
from edgefleet.serving.resident import Resident, need_of

Retire = Callable[[list[Release]], Coroutine[None, None, None]]


class PreviousReleases:
    """The kept releases, in ``of`` by model. ``retire`` frees releases.

    All but the timers are used by an Apply, which holds the lock ``swapping``.
    """

    def __init__(self, retire: Retire, swapping: asyncio.Lock) -> None:
        self.of: dict[str, Release] = {}
        self._retire = retire
        self._swapping = swapping
        self._wanted: dict[str, ServedRelease | None] = {}  # by model, of the last Apply
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._freeing: set[asyncio.Task[None]] = set()

    def keep(
        self, gone: list[Release], before: Mapping[str, Resident], now: Mapping[str, Resident]
    ) -> list[Release]:
        """Keep those of ``gone`` that were confirmed until a trial ended well. Returns the rest."""
        rest: list[Release] = []
        for release in gone:
            old, new = before.get(release.model), now.get(release.model)
            is_previous = (
                old is not None
                and new is not None
                and release is old.confirmed
                and old.trial is not None
                and new.confirmed is old.trial
            )
            if is_previous and not release.ended and _has_room(release):
                self._keep(release)
            else:
                rest.append(release)
        return rest

    def use(self, now: Mapping[str, Resident]) -> None:
        """Forget those that serve again."""
        for model, loaded in now.items():
            if self.of.get(model) in loaded.releases():
                self._forget(model)

    async def give_way(self, wanted: Apply) -> None:
        """Free the releases for which ``wanted`` has no place: see the top of this module."""
        self._wanted = {one.model: one.confirmed for one in wanted.models}
        if any(one.trial or one.shadow for one in wanted.models):
            await self.free()
        await self._free([model for model in self.of if model not in self._wanted])

    async def free(self) -> None:
        """Free all but those that are about to serve again."""
        await self._free([name for name, one in self.of.items() if not self._is_wanted(one)])

    async def close(self) -> None:
        """Free all."""
        await self._free(list(self.of))

    def _is_wanted(self, release: Release) -> bool:
        return self._wanted.get(release.model) == release.wanted

    async def _free(self, models: list[str]) -> None:
        gone = [self._forget(model) for model in models if model in self.of]
        if gone:
            await self._retire(gone)

    def _keep(self, release: Release) -> None:
        model = release.model
        self.of[model] = release
        loop = asyncio.get_running_loop()
        self._timers[model] = loop.call_later(PREVIOUS_S, self._expire, model)

    def _expire(self, model: str) -> None:
        task = asyncio.get_running_loop().create_task(self._free_late(self.of[model]))
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)

    async def _free_late(self, release: Release) -> None:
        async with self._swapping:
            if self.of.get(release.model) is release:
                await self._free([release.model])

    def _forget(self, model: str) -> Release:
        self._timers.pop(model).cancel()
        return self.of.pop(model)


def _has_room(release: Release) -> bool:
    need = need_of(release.wanted, 0, in_worker=release.worker is not None)
    return decide(need, memory_room()).how == "beside"
