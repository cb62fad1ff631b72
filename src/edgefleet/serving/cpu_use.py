"""CPU counters of the machine and of the processes that serve, from /proc."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgefleet.protocol.serving import CpuUse

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MACHINE: Final = Path("/proc/stat")
_IDLE: Final = (3, 4)  # idle and waiting for a disk, of the fields of /proc/stat
_COUNTED: Final = 8  # fields of /proc/stat; those after it are parts of the first ones


def cpu_use(workers: Iterable[int]) -> CpuUse | None:
    """The counters now. ``workers`` are the processes of releases. None without /proc/stat."""
    try:
        fields = _MACHINE.read_text().split("\n", 1)[0].split()[1 : 1 + _COUNTED]
        busy = sum(int(one) for place, one in enumerate(fields) if place not in _IDLE)
    except (OSError, ValueError):
        return None
    mine = os.times()
    ended_s = mine.children_user + mine.children_system
    serving_s = mine.user + mine.system + ended_s + sum(map(process_cpu_s, workers))
    return CpuUse(machine_s=busy / _TICKS, serving_s=serving_s, cores=len(os.sched_getaffinity(0)))


def process_cpu_s(pid: int) -> float:
    """The CPU seconds of a process. 0 if it has ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / _TICKS
    except (OSError, IndexError, ValueError):
        return 0.0
