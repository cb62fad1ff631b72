"""Which release answers now, and the live swap to the next."""

import asyncio
import ctypes
import os
from pathlib import Path

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.protocol.serving import Activate, LiveStats, ServingStatus
from edgefleet.serving.active import ActiveRelease, check_quality
from edgefleet.serving.runtime import LoadedModel, runtime_for
from edgefleet.serving.stats import memory_kib


class ModelHost:
    """Holds the active release; empty until the first activation.

    ``data_dir`` bounds where artifacts are loaded from, when it is given.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self.active: ActiveRelease | None = None
        self.activations = 0
        self._data_dir = data_dir
        self._swapping = asyncio.Lock()

    def require(self) -> ActiveRelease:
        """The active release. Raises DeviceError ``not_ready`` before the first."""
        if self.active is None:
            raise DeviceError("not_ready", "This device serves no release yet.")
        return self.active

    async def activate(self, wanted: Activate) -> None:
        """Load ``wanted`` beside the active release, then swap it in.

        Requests under way end on the release that they began on. Whatever is raised (see
        ``Runtime.load``), the active release goes on. Nothing happens when it is active already.
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
                await asyncio.to_thread(_give_memory_back)

    def status(self, url: str) -> ServingStatus:
        """What the agent asks for."""
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
        """Let the worker finish."""
        if self.active is not None:
            await asyncio.to_thread(self.active.retire)

    def _load(self, wanted: Activate) -> LoadedModel:
        path = Path(wanted.artifact_path)
        if self._data_dir is not None:
            path = path.resolve()
            if not path.is_relative_to(self._data_dir.resolve()):
                raise OperatorError(
                    "not_found", "The artifact is not in the data folder.", field="artifact_path"
                )
        return runtime_for(wanted.variant).load(path, wanted.variant)


def _give_memory_back() -> None:
    """Make glibc return what a freed model used: it keeps it until told."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
