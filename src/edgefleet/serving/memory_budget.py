"""Whether a release fits into memory beside the one that serves: a pure decision.

Three answers: load it beside, so that requests never wait; drain first, which frees the memory of
the release of the same model before the load; or refuse, and nothing changes.
"""

from dataclasses import dataclass
from typing import Final, Literal

from edgefleet.base.cgroup import MemoryRoom

MIB: Final = 1 << 20
LOAD_FACTOR: Final = {"onnx": 1.75, "tensorrt": 1.75}
"""The peak of a load, in sizes of the file. Measured with ONNX Runtime 1.31 and a model of 96 MiB:
164 MiB while its weights are packed, 96 MiB afterwards. LiteRT has a sealed copy, and packs too."""
OTHER_FACTOR: Final = 2.0
WORKER_BYTES: Final = 45 * MIB
"""Private memory of a worker process with its runtime and no model: measured 43 MiB."""
RESERVE_BYTES: Final = 8 * MIB
"""Left free for requests."""

How = Literal["beside", "drain", "refuse"]


@dataclass(frozen=True, slots=True)
class Need:
    """The memory of a load. ``drained_bytes`` are free once the release before it has ended.

    ``limit_bytes`` is the memory limit of the variant for its profile.
    """

    file_bytes: int
    runtime: str
    in_worker: bool
    limit_bytes: int
    drained_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """The most that the load uses."""
        factor = LOAD_FACTOR.get(self.runtime, OTHER_FACTOR)
        return int(self.file_bytes * factor) + (WORKER_BYTES if self.in_worker else 0)


@dataclass(frozen=True, slots=True)
class Decision:
    """How to load, and the reason with its figures."""

    how: How
    text: str


def decide(need: Need, room: MemoryRoom | None) -> Decision:
    """How a release is loaded. Without a known limit, beside."""
    if need.file_bytes > need.limit_bytes:
        return Decision(
            "refuse",
            f"The file has {_mib(need.file_bytes)}, and the memory limit of the variant is "
            f"{_mib(need.limit_bytes)}.",
        )
    if room is None:
        return Decision("beside", "The system names no limit of memory.")
    free = room.limit_bytes - room.used_bytes - RESERVE_BYTES
    figures = (
        f"The load needs {_mib(need.peak_bytes)}, and {_mib(free)} of the {room.place}'s "
        f"{_mib(room.limit_bytes)} are free"
    )
    if need.peak_bytes <= free:
        return Decision("beside", f"{figures}.")
    if need.drained_bytes and need.peak_bytes <= free + need.drained_bytes:
        return Decision(
            "drain",
            f"{figures}. The release before it is unloaded first, which frees "
            f"{_mib(need.drained_bytes)}.",
        )
    drained = (
        f", {_mib(free + need.drained_bytes)} without the release before it"
        if need.drained_bytes
        else ""
    )
    return Decision("refuse", f"{figures}{drained}.")


def _mib(count: int) -> str:
    return f"{max(0, count) / MIB:.0f} MiB"
