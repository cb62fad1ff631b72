"""CPU counters: of the machine and the processes that serve (/proc), and of inferences."""

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from edgefleet.protocol.serving import CpuUse

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MACHINE: Final = Path("/proc/stat")
_IDLE: Final = (3, 4)  # idle and waiting for a disk, of the fields of /proc/stat
_THREADS: Final = Path("/proc/self/task")
_THREAD_CLOCK: Final = 6  # CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED of Linux
_COUNTED: Final = 8  # fields of /proc/stat; those after it are parts of the first ones


class RunClock:
    """Measures the CPU of one inference after another, which one thread runs at a time.

    It is the CPU of the calling thread from ``start`` to ``stop``, and that of ``threads``, the
    threads which the runtime has for this model alone. Those may end their work after ``stop``: it
    counts for the next inference. Both are counted by the kernel in nanoseconds.
    """

    def __init__(self, threads: Sequence[int]) -> None:
        self._clocks = tuple((~thread << 3) | _THREAD_CLOCK for thread in threads)
        self._pool_ns = self._read_pool()
        self._began_ns = 0

    def start(self) -> None:
        self._began_ns = time.thread_time_ns()

    def stop(self) -> int:
        """The nanoseconds of CPU since ``start``."""
        took_ns = time.thread_time_ns() - self._began_ns
        if self._clocks:
            before_ns, self._pool_ns = self._pool_ns, self._read_pool()
            took_ns += max(0, self._pool_ns - before_ns)
        return took_ns

    def _read_pool(self) -> int:
        total_ns = 0
        for clock in self._clocks:
            with contextlib.suppress(OSError):  # the thread has ended
                total_ns += time.clock_gettime_ns(clock)
        return total_ns


def foreign_threads() -> frozenset[int]:
    """The threads of this process that Python did not start: those of libraries, by number."""
    try:
        found = {int(entry.name) for entry in _THREADS.iterdir()}
    except OSError:
        return frozenset()
    return frozenset(found - {thread.native_id for thread in threading.enumerate()})


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
