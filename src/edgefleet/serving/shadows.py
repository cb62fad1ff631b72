"""The shadows of all models, of which a process has none most of the time."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgefleet.protocol.serving import Apply
from edgefleet.protocol.shadow import ShadowStatus
from edgefleet.serving.active_release import Release
from edgefleet.serving.body_memory import BodyMemory

if TYPE_CHECKING:
    from edgefleet.serving.shadow_release import ShadowRelease


class Shadows:
    """The candidates that run as shadows, in ``of`` by model."""

    def __init__(self, bodies: BodyMemory) -> None:
        self.of: dict[str, ShadowRelease] = {}
        self._bodies = bodies

    async def keep(self, wanted: Apply) -> None:
        """Free the candidates that are not wanted any more, before anything else is loaded."""
        kept = {one.model: one.shadow for one in wanted.models if one.shadow is not None}
        gone = [model for model, one in self.of.items() if kept.get(model) != one.wanted]
        await self._drop(gone)

    def begin(self, wanted: Apply, routes: Mapping[str, Release]) -> None:
        """Load the wanted candidates that are not there, in the background."""
        for one in wanted.models:
            active = routes.get(one.model)
            if one.shadow is None or active is None or one.model in self.of:
                continue
            # Imported here: a process without a shadow does not need its memory.
            from edgefleet.serving.shadow_release import ShadowRelease  # noqa: PLC0415 - see above

            shadow = self.of[one.model] = ShadowRelease(one.model, one.shadow, self._bodies)
            shadow.begin(active)

    def status(self, model: str) -> ShadowStatus | None:
        """The status of the candidate. None without one."""
        shadow = self.of.get(model)
        return None if shadow is None else shadow.status()

    def workers(self) -> tuple[int, ...]:
        """The pids of the processes."""
        return tuple(pid for one in self.of.values() for pid in one.workers)

    async def close(self) -> None:
        """Free all candidates."""
        await self._drop(list(self.of))

    async def _drop(self, models: list[str]) -> None:
        await asyncio.gather(*[self.of.pop(model).drop() for model in models])
