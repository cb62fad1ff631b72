"""A hub on a disk that is full, read-only or damaged when it starts."""

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.security.signing import PublisherKey
from support.hub_inside import enrol_inside, hub_inside, publish_inside
from support.hub_process import HubProcess
from support.raw_device import enrolled
from support.tiny_releases import publish, start_rollout, tiny_release
from support.waiting import until

DEVICES, LAST = 3, 12


@dataclass
class Disk:
    """A small disk of the test."""

    root: Path

    @property
    def fill(self) -> Path:
        return self.root / "fill"

    def full(self) -> None:
        with suppress(OSError), self.fill.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def read_only(self) -> None:
        self._mount("remount,ro")

    def writable(self) -> None:
        self._mount("remount,rw")
        self.fill.unlink(missing_ok=True)

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-o", options, str(self.root)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(root)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


FAULTS = {"disk_full": Disk.full, "disk_readonly": Disk.read_only}


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except EdgefleetError as error:
        return error.code
    return ""


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("code", FAULTS)
def test_a_hub_starts_on_a_disk_that_cannot_be_written(
    disk: Disk, tmp_path: Path, code: str, how: str
) -> None:
    """It answers what needs no write, refuses the rest by name, and goes on once it can write."""
    hub = HubProcess(disk.root)
    try:
        publish(hub.client(), PublisherKey.generate(), tiny_release(tmp_path, "2"))
        device = enrolled(hub.client(), hub.url, 1)[0]
        rollout = start_rollout(hub.client(), "2")
        device.check_in()
        last = hub.client().audit().entries[0]
        if how == "killed":
            hub.kill()
        else:
            hub.stop()
        FAULTS[code](disk)
        hub.start()
        device.close()
        device.link = None
        device.check_in()
        client, claims = hub.client(), ClaimRequest(count=1)
        assert client.fleet().total == 1
        assert client.health().fault in {"", code}  # a tick may have had something to write
        assert refusal(lambda: client.claim(claims)) == code
        assert client.health().fault == code
        device.report(OutcomeKind.REVERTED, "1", rollout, "recalled")
        assert refusal(device.check_in) == code
        assert client.audit().entries[0] == last
        disk.writable()
        until(lambda: refusal(lambda: client.claim(claims)) == "", "The hub still refuses.")
        device.check_in()
        assert device.spool == []
        assert client.audit().entries[0].action == "claim"
        assert client.health().fault == ""
        assert hub.log.read_text() == ""
        hub.kill()
        hub.start()
        assert [at.kind for at in hub.client().device_history(device.name).attempts] == ["reverted"]
    finally:
        hub.end()


def devices_of(folder: Path) -> int:
    """Number of devices of a hub that starts on ``folder``. 0 if its release is missing."""

    async def body() -> int:
        async with hub_inside(folder) as hub:
            return hub.health().devices if set(hub.registry.models()) == {"digits"} else 0

    return asyncio.run(body())


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a hub that was killed. Its log has some devices, one release, more devices."""
    folder, copy = tmp_path_factory.mktemp("used"), tmp_path_factory.mktemp("copy") / "hub"

    async def body() -> None:
        async with hub_inside(folder) as hub:
            await enrol_inside(hub, DEVICES)
            await publish_inside(hub, PublisherKey.generate(), tiny_release(folder))
            await enrol_inside(hub, LAST, prefix="last")
            shutil.copytree(folder, copy)

    asyncio.run(body())
    (copy / "hub.json").write_text("{}")
    return copy


def merged(folder: Path) -> None:
    """Move the log into the database, as a hub that stops does."""
    with closing(sqlite3.connect(folder / "hub.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def started(folder: Path, least: int = DEVICES + LAST) -> str:
    """``whole`` if a hub starts with ``least`` devices, ``lost`` with fewer, else its refusal."""
    try:
        return "whole" if devices_of(folder) >= least else "lost"
    except OperatorError as error:
        return error.code


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("operator.token", b"\xff\xfe"),
        ("operator.token", b""),
        ("hub.secret", b"\xff\xfe"),
        ("hub.secret", b"00"),
        ("hub.sqlite", None),
        ("hub.sqlite", b"no database at all" * 100),
    ],
)
def test_a_damaged_folder_is_refused(
    used: Path, tmp_path: Path, name: str, data: bytes | None
) -> None:
    folder = shutil.copytree(used, tmp_path / "hub")
    merged(folder)
    assert started(folder) == "whole"
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    with pytest.raises(OperatorError, match=name) as refused:
        devices_of(folder)
    assert refused.value.code == "data_dir_damaged"
    assert "`edgefleet hub restore BACKUP --data-dir DIR`" in refused.value.hint


def damaged(data: bytes, at: int, kind: str) -> bytes:
    if kind == "cut":
        return data[:at]
    part = data[at : at + 512]
    fill = {"zeros": bytes(len(part)), "ones": b"\xff" * len(part)}
    return data[:at] + (fill.get(kind) or bytes(one ^ 1 for one in part)) + data[at + 512 :]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["zeros", "ones", "flipped", "cut"])
def test_a_damaged_database_is_never_a_smaller_fleet(used: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(used, tmp_path / "hub")
    merged(folder)
    whole = (folder / "hub.sqlite").read_bytes()
    seen = {}
    for at in range(0, len(whole), 2560):
        restored(folder, "hub.sqlite", damaged(whole, at, kind))
        seen[at] = started(folder)
    assert set(seen.values()) <= {"whole", "data_dir_damaged", "store_foreign"}, seen
    assert "data_dir_damaged" in seen.values()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["zeros", "ones", "flipped"])
def test_a_damaged_log_loses_only_its_end(used: Path, tmp_path: Path, kind: str) -> None:
    """Damage of the last commits looks like a power cut while they were written."""
    folder = shutil.copytree(used, tmp_path / "hub")
    name = "hub.sqlite-wal"
    whole, database = (used / name).read_bytes(), (used / "hub.sqlite").read_bytes()
    seen = {}
    for at in range(0, len(whole) * 3 // 4, 2560):
        harmed = damaged(whole, at, kind)
        if harmed != whole:
            restored(folder, "hub.sqlite", database)
            restored(folder, name, harmed)
            seen[at] = started(folder, DEVICES)
    assert set(seen.values()) == {"data_dir_damaged"}, seen
    restored(folder, "hub.sqlite", database)
    restored(folder, name, whole[:-2000])
    assert started(folder, DEVICES) == "whole"


def test_a_log_of_which_nothing_is_left_is_no_empty_fleet(used: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(used, tmp_path / "hub")
    (folder / "hub.sqlite-wal").unlink()
    assert started(folder) == "data_dir_damaged"
    assert started(folder) == "data_dir_damaged", "the first start changes nothing"


def restored(folder: Path, name: str, data: bytes) -> None:
    for left in folder.glob("hub.sqlite*"):
        if name == "hub.sqlite":
            left.unlink()
    (folder / name).write_bytes(data)
