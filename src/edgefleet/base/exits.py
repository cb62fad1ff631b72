"""How a child process ended: its exit code, and whether the kernel ended it for want of memory.

The exit code of a process that was ended for want of memory is SIGKILL, as that of any other kill.
The kernel counts the processes that it ends so: for each memory cgroup, such as a container, and
for the machine.
"""

import subprocess
from pathlib import Path
from typing import Final

_MACHINE: Final = Path("/proc/vmstat")
_V1: Final = Path("/sys/fs/cgroup/memory")
_V2: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


class MemoryKills:
    """The kernel's counter for the cgroup of a process, or for the machine where it has none."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._count = 0

    def follow(self, pid: int) -> None:
        """Follow the counter of this process, which is alive."""
        file = next((one for one in _counters(pid) if _read(one) is not None), None)
        self._file = file
        self.update()

    def update(self) -> None:
        """Remember the count: earlier kills were of other processes."""
        self._count = 0 if self._file is None else _read(self._file) or 0

    def grew(self) -> bool:
        """Whether the kernel ended a process for memory since the last ``update``."""
        return self._file is not None and (_read(self._file) or 0) > self._count


def exit_code(child: "subprocess.Popen[bytes]", patience_s: float) -> int | None:
    """The exit code of a child whose first thread has ended, as in ``Popen.returncode``.

    The kernel gives it once all threads of the child have ended, a moment later. None if they have
    not within ``patience_s``.
    """
    try:
        return child.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        return None


def _counters(pid: int) -> list[Path]:
    """The files that may have the counter, the closest one first."""
    found: list[Path] = []
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inside = path.lstrip("/")
        if "memory" in controllers.split(","):
            found += [_V1 / inside / "memory.oom_control", _V1 / "memory.oom_control"]
        elif not controllers:
            found += [root / inside / "memory.events" for root in _V2]
            found += [root / "memory.events" for root in _V2]
    return [*found, _MACHINE]


def _read(file: Path) -> int | None:
    """The counter ``oom_kill``. None if the file has none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdecimal():
            return int(value)
    return None
