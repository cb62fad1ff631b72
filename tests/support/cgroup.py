"""A memory cgroup for the processes of a test, where the machine allows one."""

import contextlib
import os
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    """A cgroup with a limit. A process that joins it takes its later children with it."""

    folder: Path

    def join(self) -> str:
        """Python by which a process joins."""
        return (
            f"import os; open({str(self.folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
        )


@contextlib.contextmanager
def memory_group(limit_mib: int) -> Generator[MemoryGroup | None]:
    """A new cgroup with this limit. None if the machine does not allow one.

    Its processes must have ended at the end of the block.
    """
    is_v1 = (_V1 / "memory.limit_in_bytes").exists()
    folder = (_V1 if is_v1 else _V2) / f"edgefleet-test-{os.getpid()}"
    limit = folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")
    try:
        folder.mkdir()
        limit.write_text(str(limit_mib << 20))
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        yield None
        return
    try:
        yield MemoryGroup(folder)
    finally:
        until = time.monotonic() + 30.0
        while folder.exists() and time.monotonic() < until:
            with contextlib.suppress(OSError):  # a process of it is not gone yet
                folder.rmdir()
            time.sleep(0.05)
