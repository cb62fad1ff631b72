"""A cgroup with the memory and the CPU of a small pod, and its counters. Needs root."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000


@dataclass(frozen=True)
class Pod:
    """``memory`` and ``cpu`` are folders of cgroup v1, or the same folder of v2."""

    memory: Path
    cpu: Path
    is_v1: bool

    def join(self, pid: int) -> None:
        """Move a process into the group. Its later children follow."""
        for folder in {self.memory, self.cpu}:
            (folder / "cgroup.procs").write_text(str(pid))

    def oom_kills(self) -> int:
        """The processes of this group that the kernel has killed for memory."""
        file = "memory.oom_control" if self.is_v1 else "memory.events"
        return _line(self.memory / file, "oom_kill")

    def used_mib(self) -> float:
        """Memory of the group without the cache of files, which the kernel takes back."""
        key = "total_rss" if self.is_v1 else "anon"
        shared = "total_shmem" if self.is_v1 else "shmem"
        stat = self.memory / "memory.stat"
        return (_line(stat, key) + _line(stat, shared)) / (1 << 20)

    def peak_mib(self) -> float:
        """The highest memory so far, the cache of files included. 0 if the kernel does not say."""
        file = self.memory / ("memory.max_usage_in_bytes" if self.is_v1 else "memory.peak")
        return int(file.read_text()) / (1 << 20) if file.exists() else 0.0


@contextlib.contextmanager
def pod(memory_mib: int, cpus: float) -> Iterator[Pod | None]:
    """A new group. None if the machine allows none.

    Its processes must have ended at the end of the block.
    """
    is_v1 = (ROOT / "memory" / "memory.limit_in_bytes").exists()
    name = f"edgefleet-bench-{os.getpid()}"
    made = Pod(ROOT / "memory" / name, ROOT / "cpu" / name, is_v1=True)
    if not is_v1:
        made = Pod(ROOT / name, ROOT / name, is_v1=False)
    quota_us = int(cpus * PERIOD_US)
    try:
        for folder in {made.memory, made.cpu}:
            folder.mkdir()
        if is_v1:
            (made.memory / "memory.limit_in_bytes").write_text(str(memory_mib << 20))
            (made.cpu / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (made.cpu / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (made.memory / "memory.max").write_text(str(memory_mib << 20))
            (made.cpu / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    except OSError:
        _remove(made, 0.0)
        yield None
        return
    try:
        yield made
    finally:
        _remove(made, 30.0)


def _remove(made: Pod, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    for folder in {made.memory, made.cpu}:
        while folder.exists():
            with contextlib.suppress(OSError):  # a process of it is not gone yet
                folder.rmdir()
            if time.monotonic() >= until:
                break
            time.sleep(0.05)


def _line(file: Path, key: str) -> int:
    for line in file.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
