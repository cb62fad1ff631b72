"""The lines between the hub and the process that reads uploaded files for it."""

from enum import StrEnum
from typing import Literal

from edgefleet.protocol.release import ReleaseManifest
from edgefleet.protocol.wire import Problem, Wire

Part = Literal["variant", "golden", "lineage"]


class ReadFile(Wire, frozen=True, kw_only=True):
    """A file to check against its manifest, with the limits of the process that reads it.

    ``index`` is that of the variant. ``cpu_s`` and ``wall_s`` are seconds.
    """

    part: Part
    manifest: ReleaseManifest
    path: str
    memory_bytes: int
    cpu_s: float
    wall_s: float
    index: int = 0


class ReadEnd(StrEnum):
    """How the reading of a file ended."""

    DONE = "done"
    REFUSED = "refused"
    MEMORY = "memory"  # it reached its limit
    TIME = "time"  # likewise
    CRASH = "crash"


class ReadResult(Wire, frozen=True, kw_only=True):
    """The end of a reading. ``problem`` is that of a refused file."""

    end: ReadEnd
    problem: Problem | None = None
    detail: str = ""
