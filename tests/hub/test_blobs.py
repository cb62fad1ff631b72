"""Artifacts: complete and durable under their digest, or absent."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pytest

from edgefleet.base.errors import DeviceError, EdgefleetError, OperatorError, PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.hub import blobs as blobs_module
from edgefleet.hub import part_files
from edgefleet.hub.blobs import Blobs

DATA = bytes(range(256)) * 10_000


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_bytes_come_back_under_their_digest(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    digest = sha256_hex(DATA)
    assert blobs.size(digest) is None
    assert asyncio.run(blobs.put(digest, pieces(DATA))) == len(DATA)
    assert blobs.path(digest).read_bytes() == DATA
    assert blobs.size(digest) == len(DATA)
    assert files(tmp_path) == [f"{digest[:2]}/{digest}"]


def test_a_wrong_digest_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    with pytest.raises(PublisherError, match="digest_mismatch"):
        asyncio.run(blobs.put(sha256_hex(b"something else"), pieces(DATA)))
    assert files(tmp_path) == []


def test_an_artifact_above_the_limit_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, max_bytes=len(DATA) - 1)
    with pytest.raises(PublisherError, match="artifact_too_large"):
        asyncio.run(blobs.put(sha256_hex(DATA), pieces(DATA)))
    assert files(tmp_path) == []


async def broken(data: bytes, size: int) -> AsyncIterator[bytes]:
    """The first ``size`` bytes, then the sender breaks off."""
    yield data[:size]
    raise ConnectionError


BEGUN = 2 << 20  # the hub writes in pieces of a MiB


def begin(root: Path, data: bytes = DATA) -> int:
    """Interrupt an upload. Returns where it continues."""
    blobs = Blobs(root, max_bytes=1 << 30)
    digest = sha256_hex(data)
    with pytest.raises(ConnectionError):
        asyncio.run(blobs.put(digest, broken(data, BEGUN)))
    return blobs.uploaded(digest)


def test_an_upload_that_breaks_off_is_continued_by_a_hub_started_again(tmp_path: Path) -> None:
    assert begin(tmp_path) == BEGUN
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    digest = sha256_hex(DATA)
    assert (blobs.size(digest), blobs.uploaded(digest)) == (None, BEGUN)
    for start in (BEGUN + 1, len(DATA)):
        with pytest.raises(DeviceError, match="range_invalid"):
            asyncio.run(blobs.put(digest, pieces(DATA[start:]), start=start))
    start = BEGUN - 7  # bytes may come twice
    assert asyncio.run(blobs.put(digest, pieces(DATA[start:]), start=start)) == len(DATA)
    assert blobs.path(digest).read_bytes() == DATA
    assert files(tmp_path) == [f"{digest[:2]}/{digest}"]


def test_a_part_that_was_damaged_is_found_and_removed(tmp_path: Path) -> None:
    start = begin(tmp_path)
    digest = sha256_hex(DATA)
    with (tmp_path / "incoming" / f"{digest}.part").open("r+b") as part:
        part.seek(1000)
        part.write(b"x")
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    with pytest.raises(PublisherError, match="digest_mismatch"):
        asyncio.run(blobs.put(digest, pieces(DATA[start:]), start=start))
    assert (blobs.uploaded(digest), files(tmp_path)) == (0, [])


def test_the_parts_of_interrupted_uploads_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "PARTS_KEPT", 2)
    for number in range(4):
        begin(tmp_path, DATA + bytes([number]))
        part = tmp_path / "incoming" / f"{sha256_hex(DATA + bytes([number]))}.part"
        os.utime(part, (number, number))
    kept = [sha256_hex(DATA + bytes([number])) for number in (1, 2, 3)]
    assert files(tmp_path) == sorted(f"incoming/{digest}.part" for digest in kept)


def test_an_upload_leaves_room_for_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "FREE_SHARE", 1.0)
    monkeypatch.setattr(part_files, "FREE_BYTES", 1 << 60)
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    with pytest.raises(DeviceError, match="are kept for the database"):
        asyncio.run(blobs.put(sha256_hex(DATA), pieces(DATA), announced_bytes=len(DATA)))
    assert files(tmp_path) == []


@pytest.mark.long
def test_an_artifact_above_four_gib_is_continued_and_hashed(tmp_path: Path) -> None:
    start, tail = 4 << 30, b"end"
    digest = sha256()
    zeros = bytes(1 << 24)
    for _ in range(start // len(zeros)):
        digest.update(zeros)
    digest.update(tail)
    name = digest.hexdigest()
    blobs = Blobs(tmp_path, max_bytes=32 << 30)
    part = tmp_path / "incoming" / f"{name}.part"
    part.touch()
    os.truncate(part, start)  # without blocks on the disk
    assert blobs.uploaded(name) == start
    assert asyncio.run(blobs.put(name, pieces(tail), start=start)) == start + 3
    assert blobs.path(name).stat().st_size == start + 3


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "..",
        "../../etc/passwd",
        "a" * 63,
        "A" * 64,
        "a" * 65,
        "incoming",
        "a" * 62 + "/.",
        "a" * 64 + "\n",
        "٣" * 64,
    ],
)
def test_no_digest_leads_out_of_the_folder(tmp_path: Path, digest: str) -> None:
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    for refused in (blobs.path, blobs.size):
        with pytest.raises(OperatorError, match="bad_request"):
            refused(digest)
    with pytest.raises(OperatorError, match="bad_request"):
        asyncio.run(blobs.put(digest, pieces(DATA)))
    assert files(tmp_path) == []


def test_the_same_artifact_may_come_from_several_senders_at_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    digest = sha256_hex(DATA)

    async def main() -> list[int]:
        return await asyncio.gather(
            *(blobs.put(digest, pieces(DATA, size)) for size in (7_777, 100_000, 1 << 21))
        )

    assert asyncio.run(main()) == [len(DATA)] * 3
    assert blobs.path(digest).read_bytes() == DATA
    assert files(tmp_path) == [f"{digest[:2]}/{digest}"]


def test_uploads_at_once_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "UPLOADS_AT_ONCE", 1)
    blobs = Blobs(tmp_path, max_bytes=1 << 30)

    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            begun.set()
            await go_on.wait()
            yield DATA

        first = asyncio.create_task(blobs.put(sha256_hex(DATA), slow()))
        await begun.wait()
        with pytest.raises(DeviceError, match="overloaded"):
            await blobs.put(sha256_hex(b"x"), pieces(b"x"))
        go_on.set()
        await first
        await blobs.put(sha256_hex(b"x"), pieces(b"x"))

    asyncio.run(main())


def test_a_full_disk_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> BinaryIO:
        path.touch()
        return Path("/dev/full").open("r+b", buffering=0)

    monkeypatch.setattr(part_files, "open_part", full)
    monkeypatch.setattr(part_files, "_continue_at", lambda *_given: None)
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    with pytest.raises(EdgefleetError, match="disk_full"):
        asyncio.run(blobs.put(sha256_hex(DATA), pieces(DATA)))
    assert files(tmp_path) == []


UPLOAD_UNTIL_KILLED = textwrap.dedent(
    """
    import asyncio, hashlib, sys
    from pathlib import Path
    from edgefleet.hub.blobs import Blobs

    async def pieces(data):
        for at in range(0, len(data), 50_000):
            yield data[at:at + 50_000]

    async def main():
        blobs = Blobs(Path(sys.argv[1]), max_bytes=1 << 30)
        for number in range(10_000):
            data = number.to_bytes(4, "big") * 100_000
            digest = hashlib.sha256(data).hexdigest()
            await blobs.put(digest, pieces(data))
            print(digest, flush=True)

    asyncio.run(main())
    """
)


def test_a_hub_killed_while_it_takes_artifacts_keeps_whole_ones_only(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", UPLOAD_UNTIL_KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line.strip())
        if len(told) == 5:
            os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    assert len(told) >= 5
    assert all(sha256_hex(blobs.path(digest).read_bytes()) == digest for digest in told)
    whole = [name for name in files(tmp_path) if not name.startswith("incoming/")]
    for name in whole:
        assert sha256_hex((tmp_path / name).read_bytes()) == Path(name).name


def test_what_a_killed_hub_was_receiving_is_gone_at_the_next_start(tmp_path: Path) -> None:
    Blobs(tmp_path, max_bytes=1 << 30)
    (tmp_path / "incoming" / "half").write_bytes(DATA)
    Blobs(tmp_path, max_bytes=1 << 30)
    assert files(tmp_path) == []


def test_bytes_are_durable_before_their_name_and_the_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").readlink()
        done.append(f"sync {str(place).removeprefix(str(tmp_path))}")
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    blobs = Blobs(tmp_path, max_bytes=1 << 30)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    digest = sha256_hex(DATA)
    asyncio.run(blobs.put(digest, pieces(DATA)))
    assert done[0].startswith("sync /incoming/")
    assert done[1:] == ["sync ", "rename", f"sync /{digest[:2]}"]
