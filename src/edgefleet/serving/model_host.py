"""Holds the active release and swaps it without dropping requests."""

import asyncio
import ctypes
import os
from pathlib import Path

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.protocol.serving import Activate, LiveStats, ServingStatus
from edgefleet.serving.active_release import ActiveRelease, check_quality
from edgefleet.serving.runtime import LoadedModel, runtime_for
from edgefleet.serving.stats import memory_kib


class ModelHost:
    """Holds the active release. ``active`` is None until the first activation.

    Artifacts are loaded only from ``data_dir``, if it is given.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self.active: ActiveRelease | None = None
        self.activations = 0
        self._data_dir = data_dir
        self._swapping = asyncio.Lock()

    def require(self) -> ActiveRelease:
        """The active release. Raises DeviceError ``not_ready`` if there is none yet."""
        if self.active is None:
            raise DeviceError("not_ready", "This device serves no release yet.")
        return self.active

    async def activate(self, wanted: Activate) -> None:
        """Load ``wanted`` beside the active release, then swap it in.

        Requests in progress finish on the previous release. If loading raises an error (see
        ``Runtime.load``), the active release stays active. No effect if ``wanted`` is active.
        """
        async with self._swapping:
            if self.active is not None and self.active.wanted == wanted:
                return
            check_quality(wanted)
            loaded = await asyncio.to_thread(self._load, wanted)
            old, self.active = self.active, ActiveRelease(wanted, loaded)
            self.activations += 1
            if old is not None:
                await asyncio.to_thread(old.retire)
                del old
                await asyncio.to_thread(_return_memory)

    def status(self, url: str) -> ServingStatus:
        """The answer to the agent's status request."""
        active = self.active
        if active is None:
            stats = LiveStats(memory_mib=memory_kib() >> 10)
            return ServingStatus(pid=os.getpid(), ready=False, url=url, stats=stats)
        return ServingStatus(
            pid=os.getpid(),
            ready=True,
            model=active.model,
            release=active.release,
            artifact_sha256=active.wanted.variant.artifact.sha256,
            url=url,
            stats=active.stats.live(),
        )

    async def close(self) -> None:
        """Finish the queued inferences."""
        if self.active is not None:
            await asyncio.to_thread(self.active.retire)

    def _load(self, wanted: Activate) -> LoadedModel:
        path = Path(wanted.artifact_path)
        if self._data_dir is not None:
            path = path.resolve()
            if not path.is_relative_to(self._data_dir.resolve()):
                raise OperatorError(
                    "not_found",
                    f"The artifact {path} is not in the data folder.",
                    field="artifact_path",
                )
        return runtime_for(wanted.variant).load(path, wanted.variant)


def _return_memory() -> None:
    """Return the memory of a freed model to the system. glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
