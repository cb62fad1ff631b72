"""Garbage collection of artifacts: in the background, one file at a time, or on command."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from edgefleet.base.clock import Clock
from edgefleet.base.texts import counted
from edgefleet.hub.actors import line_by
from edgefleet.hub.blobs import Blobs
from edgefleet.hub.limits import (
    COLLECT_EVERY_S,
    COLLECTED_SHOWN,
    SHORT_SHARE,
    UNNAMED_KEPT_S,
    UNNAMED_KEPT_SHORT_S,
)
from edgefleet.hub.registry import Registry
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.hub.unneeded import StoredFile, unneeded
from edgefleet.protocol.collection import Collect, Collected
from edgefleet.security.principals import Principal


class Collector:
    """Removes the artifacts that ``unneeded`` names, and old parts of interrupted uploads."""

    def __init__(
        self,
        blobs: Blobs,
        registry: Registry,
        store: SqliteStore,
        clock: Clock,
        *,
        ahead: Callable[[], int],
    ) -> None:
        """``ahead`` counts the devices that run what this hub has no record of."""
        self._blobs = blobs
        self._registry = registry
        self._store = store
        self._clock = clock
        self._ahead = ahead
        self._due = clock.monotonic() + COLLECT_EVERY_S
        self._queue = deque[StoredFile]()

    async def step(self) -> None:
        """Remove one file, if one is due. A disk that cannot be written is tried again later."""
        with suppress(OSError):
            if self._queue:
                await self._remove(self._queue.popleft())
            elif self._clock.monotonic() >= self._due:
                self._due = self._clock.monotonic() + COLLECT_EVERY_S
                self._queue.extend(self._unneeded(await self._blobs.stored()))

    async def collect(self, request: Collect, by: Principal) -> Collected:
        """Remove all at once, or count them. Raises OSError."""
        stored = await self._blobs.stored()
        found = self._unneeded(stored)
        if not request.dry_run:
            found = [file for file in found if await self._remove(file)]
        removed_bytes = sum(file.size_bytes for file in found)
        if found and not request.dry_run:
            text = f"{counted(len(found), 'artifact')}, {removed_bytes:,} bytes"
            line = line_by(by, "collect", "artifacts", text)
            await self._store.change(
                lambda _connection: None, [line], self._clock.now(), lambda _none: None
            )
        return Collected(
            dry_run=request.dry_run,
            removed=len(found),
            removed_bytes=removed_bytes,
            artifacts=tuple(file.digest for file in found[:COLLECTED_SHOWN]),
            kept=len(stored) - len(found),
            kept_bytes=sum(file.size_bytes for file in stored) - removed_bytes,
            kept_s=self._kept_s(),
            postponed=self._postponed(),
        )

    def _unneeded(self, files: list[StoredFile]) -> list[StoredFile]:
        if self._postponed():
            return []
        return unneeded(
            files,
            self._registry.manifests(),
            self._blobs.in_use,
            now=self._clock.now(),
            kept_s=self._kept_s(),
        )

    async def _remove(self, file: StoredFile) -> bool:
        """Remove a file, unless it is needed now: a publisher may have asked for it meanwhile."""
        now_stored = self._blobs.stored_file(file.digest)
        if now_stored is None or not self._unneeded([now_stored]):
            return False
        await self._blobs.remove(file.digest)
        return True

    def _kept_s(self) -> float:
        short = self._blobs.free_share() < SHORT_SHARE
        return UNNAMED_KEPT_SHORT_S if short else UNNAMED_KEPT_S

    def _postponed(self) -> str:
        ahead = self._ahead()
        if not ahead:
            return ""
        return (
            f"The hub was restored from an older copy, and {counted(ahead, 'device')} ahead of it "
            "may need more. See `edgefleet device list --ahead`."
        )
