"""The limits that the system sets to this process: CPU quota and memory.

cgroup v1, v2 and both beside each other. A limit of a group binds all groups below it, so each
group from that of this process up to the root of its mount is read. In a container the mount may
begin below the root of the machine, and the path of the own group may be one of the machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path("/")
_UNLIMITED: Final = 1 << 60  # cgroup v1 writes the largest page-aligned number for "no limit"
_V1_MOUNT: Final = "cgroup"
_V2_MOUNT: Final = "cgroup2"


@dataclass(frozen=True, slots=True)
class MemoryRoom:
    """The limit with the least memory left. ``place`` is ``cgroup`` or ``machine``.

    ``used_bytes`` leaves out what the system can drop at once: files that were read and are not in
    use.
    """

    limit_bytes: int
    used_bytes: int
    place: str

    @property
    def free_bytes(self) -> int:
        return max(0, self.limit_bytes - self.used_bytes)


class _Mount(NamedTuple):
    root: str  # the group that is mounted
    point: Path
    kind: str
    options: frozenset[str]


def cpu_quota(root: Path = ROOT) -> float | None:
    """The smallest CPU quota of this process, in CPUs. None without one.

    ``root`` is the folder with ``proc`` and ``sys``, for tests.
    """
    found: list[float] = []
    for group in _groups("cpu", root):
        text = _read(group / "cpu.max").split()
        if not text:
            text = [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if len(text) == 2 and all(_is_number(one) for one in text) and int(text[1]) > 0:
            found.append(int(text[0]) / int(text[1]))
    return min((one for one in found if one > 0), default=None)


def memory_room(root: Path = ROOT) -> MemoryRoom | None:
    """The limit that this process reaches first. None if the system does not say any."""
    levels = [*_memory_levels(root), *_machine(root)]
    return min(levels, key=lambda one: one.limit_bytes - one.used_bytes, default=None)


def _memory_levels(root: Path) -> Iterator[MemoryRoom]:
    for group in _groups("memory", root):
        limits = [
            int(text)
            for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
            if _is_number(text := _read(group / name).strip()) and 0 < int(text) < _UNLIMITED
        ]
        used = _read(group / "memory.current").strip()
        used = used or _read(group / "memory.usage_in_bytes").strip()
        if limits and _is_number(used):
            held = int(used) - _droppable(group)
            yield MemoryRoom(min(limits), max(0, held), "cgroup")


def _droppable(group: Path) -> int:
    """Bytes of files that are not in use: the system drops them before it ends a process."""
    values = dict(
        line.split() for line in _read(group / "memory.stat").splitlines() if line.count(" ") == 1
    )
    text = values.get("total_inactive_file", values.get("inactive_file", "0"))
    return int(text) if _is_number(text) else 0


def _machine(root: Path) -> Iterator[MemoryRoom]:
    values = {
        name: int(rest.split()[0]) << 10
        for name, _, rest in (
            line.partition(":") for line in _read(root / "proc/meminfo").splitlines()
        )
        if rest.strip() and _is_number(rest.split()[0])
    }
    if "MemTotal" in values and "MemAvailable" in values:
        total = values["MemTotal"]
        yield MemoryRoom(total, total - values["MemAvailable"], "machine")


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the groups of this process that the controller may limit, closest first."""
    mounts = list(_mounts(root))
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        kind = _V1_MOUNT if controllers else _V2_MOUNT
        if controllers and controller not in controllers.split(","):
            continue
        for mount in mounts:
            if mount.kind == kind and (not controllers or controller in mount.options):
                yield from _upwards(mount, path)


def _upwards(mount: _Mount, path: str) -> Iterator[Path]:
    """The group at ``path`` and those above it, as far as they are mounted."""
    inside = Path(path)
    if mount.root != "/" and inside.is_relative_to(mount.root):
        inside = inside.relative_to(mount.root)
    parts = [part for part in inside.parts if part not in ("/", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.point.joinpath(*parts[:length])


def _mounts(root: Path) -> Iterator[_Mount]:
    """The mounted hierarchies, from /proc/self/mountinfo; see proc_pid_mountinfo(5)."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) >= 5 and len(rest) >= 3 and rest[0] in (_V1_MOUNT, _V2_MOUNT):
            point = root / fields[4].lstrip("/")
            yield _Mount(fields[3], point, rest[0], frozenset(rest[2].split(",")))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
