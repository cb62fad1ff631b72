"""The limits of the cgroup: v1, v2, nested, in a container and beside each other."""

from pathlib import Path

import pytest

from edgefleet.base.cgroup import MemoryRoom, cpu_quota, memory_room

V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "38 31 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
MIB = 1 << 20


def machine(
    root: Path, mounts: str, cgroup: str, files: dict[str, str], available_mib: int = 8_000
) -> Path:
    """A folder with the files of a machine of 8,192 MiB."""
    text = {
        "proc/self/mountinfo": mounts,
        "proc/self/cgroup": cgroup,
        "proc/meminfo": f"MemTotal: {8192 << 10} kB\nMemAvailable: {available_mib << 10} kB\n",
        **{f"sys/fs/cgroup/{name}": value for name, value in files.items()},
    }
    for name, value in text.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    return root


@pytest.mark.parametrize(
    ("mounts", "cgroup", "files", "cpus"),
    [
        (V2, "0::/\n", {"cpu.max": "max 100000\n"}, None),
        (V2, "0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        (V2, "0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
        (V2, "0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "100000 50000"}, 2.0),
        (V2.replace("0:28 / ", "0:28 /pod/x "), "0::/pod/x/y\n", {"y/cpu.max": "1 2"}, 0.5),
        # In a container the mount and the path may both be those of the machine.
        (V2.replace("0:28 / ", "0:28 /pod/x "), "0::/pod/x\n", {"cpu.max": "3 2"}, 1.5),
        (V2.replace("0:28 / ", "0:28 /../.. "), "0::/../..\n", {"cpu.max": "3 2"}, 1.5),
        (
            V1,
            "4:memory:/m\n3:cpu,cpuacct:/a/b\n0::/\n",
            {
                "cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/a/cpu.cfs_quota_us": "150000\n",
                "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            1.5,
        ),
        (V2, "0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("", "", {}, None),
    ],
    ids=["max", "own", "above", "own is less", "nested mount", "container", "dots", "v1", "nonsense", "none"],
)  # fmt: skip
def test_the_smallest_quota_counts(
    tmp_path: Path, mounts: str, cgroup: str, files: dict[str, str], cpus: float | None
) -> None:
    assert cpu_quota(machine(tmp_path, mounts, cgroup, files)) == cpus


@pytest.mark.parametrize(
    ("mounts", "cgroup", "files", "room"),
    [
        (V2, "0::/\n", {"memory.max": "max\n"}, (8192, 192, "machine")),
        (
            V2,
            "0::/a/b\n",
            {
                "a/memory.max": str(600 * MIB), "a/memory.current": str(500 * MIB),
                "a/memory.stat": f"anon 5\ninactive_file {150 * MIB}\n",
                "a/b/memory.max": str(512 * MIB), "a/b/memory.current": str(100 * MIB),
            },
            (600, 350, "cgroup"),
        ),
        (
            V2,
            "0::/a\n",
            {
                "a/memory.max": str(512 * MIB), "a/memory.high": str(256 * MIB),
                "a/memory.current": str(56 * MIB),
            },
            (256, 56, "cgroup"),
        ),
        (
            V1,
            "4:memory:/m\n0::/\n",
            {
                "memory/m/memory.limit_in_bytes": str(300 * MIB),
                "memory/m/memory.usage_in_bytes": str(120 * MIB),
                "memory/m/memory.stat": f"inactive_file 1\ntotal_inactive_file {20 * MIB}\n",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": str(900 * MIB),
            },
            (300, 100, "cgroup"),
        ),
    ],
    ids=["no limit", "above", "high", "v1"],
)  # fmt: skip
def test_the_limit_with_the_least_memory_left_counts(
    tmp_path: Path, mounts: str, cgroup: str, files: dict[str, str], room: tuple[int, int, str]
) -> None:
    limit, used, place = room
    found = memory_room(machine(tmp_path, mounts, cgroup, files))
    assert found == MemoryRoom(limit * MIB, used * MIB, place)
    assert found.free_bytes == (limit - used) * MIB


def test_a_machine_with_less_memory_than_the_group_counts(tmp_path: Path) -> None:
    files = {"memory.max": str(512 * MIB), "memory.current": "0"}
    assert memory_room(machine(tmp_path, V2, "0::/\n", files, available_mib=100)) == MemoryRoom(
        8192 * MIB, 8092 * MIB, "machine"
    )


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert memory_room(tmp_path) is None
    assert cpu_quota(tmp_path) is None
