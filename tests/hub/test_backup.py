"""Backups of a hub that runs: whole, found damaged, restored, and nothing lost on the way."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path

import msgspec
import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.hub.backup import restore as restore_module
from edgefleet.hub.backup.make import MadeBackup, make_backup
from edgefleet.hub.backup.record import RECORD, artifacts_of, backups_in, blob_path, read_record
from edgefleet.hub.backup.restore import restore_backup
from edgefleet.hub.backup.verify import verify_backup, verify_data_dir
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import OutcomeKind
from edgefleet.security.signing import PublisherKey
from support.hub_inside import START, enrol_inside, hub_inside, publish_inside
from support.hub_process import running_hub
from support.raw_device import enrolled
from support.tiny_releases import publish, start_rollout, tiny_release

KEY = PublisherKey.generate()


async def fill(hub: Hub, folder: Path) -> None:
    await enrol_inside(hub, 2)
    await publish_inside(hub, KEY, tiny_release(folder, "1"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeBackup:
    """A backup that was made while the hub ran: two devices, one release."""
    folder = tmp_path_factory.mktemp("hub")

    async def body() -> MadeBackup:
        async with hub_inside(folder / "data") as hub:
            await fill(hub, folder)
            return make_backup(folder / "data", folder / "backups", now=START)

    return asyncio.run(body())


@pytest.fixture
def backup(made: MadeBackup, tmp_path: Path) -> Path:
    """A copy of the backup, which the test may damage."""
    copied = shutil.copytree(Path(made.backup).parent, tmp_path / "backups")
    return copied / Path(made.backup).name


def content(data_dir: Path) -> tuple[int, set[str], str]:
    """Devices, releases and operator token of a hub that starts on ``data_dir``."""

    async def body() -> tuple[int, set[str], str]:
        async with hub_inside(data_dir) as hub:
            releases = {
                f"{model} {one}" for model, all_ in hub.registry.models().items() for one in all_
            }
            return hub.health().devices, releases, (hub.folder.root / "operator.token").read_text()

    return asyncio.run(body())


def test_a_backup_restores_the_hub_as_it_was(made: MadeBackup, tmp_path: Path) -> None:
    assert (made.record.devices, made.record.releases, made.harmed) == (2, 1, ())
    assert verify_backup(Path(made.backup)).faults == ()
    restored = restore_backup(Path(made.backup).parent, tmp_path / "new", now=START)
    assert restored.aside == ""
    assert verify_data_dir(tmp_path / "new").faults == ()
    original = Path(made.backup).parents[1] / "data"
    assert content(tmp_path / "new") == content(original)
    assert (tmp_path / "new/hub.secret").stat().st_mode & 0o777 == 0o600


def test_a_second_backup_copies_new_artifacts_only(tmp_path: Path) -> None:
    async def body() -> tuple[MadeBackup, MadeBackup, int]:
        async with hub_inside(tmp_path / "data") as hub:
            await fill(hub, tmp_path)
            first = make_backup(tmp_path / "data", tmp_path / "backups", now=START)
            new = tiny_release(tmp_path, "2", hidden=2)
            await publish_inside(hub, KEY, new)
            second = make_backup(tmp_path / "data", tmp_path / "backups", now=START + 1)
            return first, second, sum(one.size_bytes for one in artifacts_of(new.manifest))

    first, second, size_bytes = asyncio.run(body())
    files = sum(file.size_bytes for file in second.record.files)
    known = {one.sha256 for one in first.record.artifacts} & {
        one.sha256 for one in second.record.artifacts
    }
    assert second.copied_bytes - files == size_bytes, known
    assert (first.record.releases, second.record.releases) == (1, 2)
    assert verify_backup(Path(first.backup)).faults == ()


def test_only_the_newest_backups_are_kept_and_what_they_need(tmp_path: Path) -> None:
    folder, data = tmp_path / "backups", tmp_path / "data"

    async def body() -> str:
        async with hub_inside(data) as hub:
            await fill(hub, tmp_path)
            for second in range(3):
                last = make_backup(data, folder, now=START + second, keep=2)
            (folder / "blobs" / "ab").mkdir()
            (folder / "blobs" / "ab" / "ab00").write_bytes(b"of no backup")
            last = make_backup(data, folder, now=START + 3, keep=2)
            return last.removed[0]

    removed = asyncio.run(body())
    assert len(backups_in(folder)) == 2
    assert removed.endswith("15-06-41.000Z")
    assert not (folder / "blobs/ab/ab00").exists()
    assert all(verify_backup(one).faults == () for one in backups_in(folder))


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1])


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, change, Path.unlink])
@pytest.mark.parametrize("name", ["hub.sqlite", "hub.secret", "operator.token", "artifact"])
def test_a_damaged_backup_is_found_and_not_restored(
    backup: Path, tmp_path: Path, name: str, damage: object
) -> None:
    digest = read_record(backup).artifacts[0].sha256
    path = blob_path(backup.parent, digest) if name == "artifact" else backup / name
    assert callable(damage)
    damage(path)
    faults = verify_backup(backup).faults
    assert any(str(path) in fault for fault in faults), faults
    with pytest.raises(OperatorError, match="data_dir_damaged"):
        restore_backup(backup, tmp_path / "new", now=START)
    assert not (tmp_path / "new").exists()


def test_a_record_of_a_later_format_is_refused(backup: Path) -> None:
    record = msgspec.json.decode((backup / RECORD).read_bytes())
    (backup / RECORD).write_bytes(msgspec.json.encode({**record, "format": 2}))
    with pytest.raises(OperatorError, match="store_foreign"):
        verify_backup(backup)


def test_a_damaged_artifact_is_named_and_the_rest_is_backed_up(
    backup: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    restore_backup(backup, data, now=START)
    artifacts = read_record(backup).artifacts
    change(blob_path(data, artifacts[0].sha256))
    blob_path(data, artifacts[1].sha256).unlink()
    made = make_backup(data, tmp_path / "others", now=START)
    assert set(made.harmed) == {artifacts[0].sha256, artifacts[1].sha256}
    assert (made.record.devices, len(verify_data_dir(data).faults)) == (2, 2)
    assert len(verify_backup(Path(made.backup)).faults) == 2


def test_a_damaged_database_is_not_backed_up(backup: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "others"
    restore_backup(backup, data, now=START)
    make_backup(data, folder, now=START, keep=1)
    database = bytearray((data / "hub.sqlite").read_bytes())
    database[4096 : 8 * 4096] = bytes(7 * 4096)
    (data / "hub.sqlite").write_bytes(database)
    with pytest.raises(OperatorError, match="data_dir_damaged"):
        make_backup(data, folder, now=START + 1, keep=1)
    assert [verify_backup(one).faults for one in backups_in(folder)] == [()]
    assert verify_data_dir(data).faults


def test_a_hub_in_the_folder_is_not_overwritten(backup: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def body() -> str:
        async with hub_inside(data) as hub:
            await enrol_inside(hub, 5)
            with pytest.raises(OperatorError, match="data_dir_in_use"):
                restore_backup(backup, data, now=START, replace=True)
            return (hub.folder.root / "operator.token").read_text()

    token = asyncio.run(body())
    with pytest.raises(OperatorError, match="setting_invalid"):
        restore_backup(backup, data, now=START)
    aside = Path(restore_backup(backup, data, now=START, replace=True).aside)
    assert content(data)[0] == 2
    assert content(aside) == (5, set(), token)


class _CutError(Exception):
    pass


@contextmanager
def cut_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """End the restore before its ``number``-th file."""
    left = number

    def counted(real: object) -> object:
        def run(*given: object, **more: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise _CutError
            assert callable(real)
            return real(*given, **more)

        return run

    with monkeypatch.context() as patched:
        for name in ("copy_file", "copy_blob", "replace_file"):
            patched.setattr(restore_module, name, counted(getattr(restore_module, name)))
        yield


def test_an_interrupted_restore_is_never_a_hub_without_devices(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, refused = 0, 0
    while True:
        data = tmp_path / f"data{files}"
        try:
            with cut_at(files, monkeypatch):
                restore_backup(backup, data, now=START)
        except _CutError:
            files += 1
        else:
            break
        if list(data.glob("hub.*")) != [data / "hub.lock"]:
            with pytest.raises(OperatorError, match="data_dir_damaged"):
                content(data)
            refused += 1
        restore_backup(backup, data, now=START, replace=True)
        assert content(data)[0] == 2
    assert refused > 3


def test_what_an_interrupted_backup_left_is_removed(backup: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "others"
    restore_backup(backup, data, now=START)
    left = folder / ".2025-01-01T00-00-00.000Z.part"
    left.mkdir(parents=True)
    (left / "hub.sqlite").write_bytes(b"half")
    made = make_backup(data, folder, now=START)
    assert not left.exists()
    assert verify_backup(Path(made.backup)).faults == ()


def test_an_unfinished_backup_is_no_backup(backup: Path) -> None:
    (backup / RECORD).unlink()
    with pytest.raises(OperatorError, match="not_found"):
        restore_backup(backup.parent, backup.parent / "new", now=START)


@pytest.mark.long
def test_backups_of_a_busy_hub_have_all_that_was_acknowledged(tmp_path: Path) -> None:
    """Devices report all the time. A backup has each report acknowledged before it began."""
    data, folder = tmp_path / "data", tmp_path / "backups"
    acknowledged: list[int] = []
    with running_hub(data) as hub:
        publish(hub.client(), KEY, tiny_release(tmp_path, "1"))
        devices = enrolled(hub.client(), hub.url, 12)
        rollout = start_rollout(hub.client(), "1")
        asking = cycle(devices)

        def report() -> None:
            device = next(asking)
            device.report(OutcomeKind.REVERTED, "1", rollout, "recalled")
            device.check_in()
            assert device.spool == []

        for _ in range(4):
            for _ in range(20):
                report()
            acknowledged.append(sum(len(device.reported) for device in devices))
            command = [sys.executable, "-m", "edgefleet.cli.main", "hub", "backup", str(folder)]
            writing = subprocess.Popen([*command, "--data-dir", str(data)])
            for _ in range(400):
                report()
                if writing.poll() is not None:
                    break
            assert writing.wait(60) == 0
        for device in devices:
            device.close()
    assert len(backups_in(folder)) == 4
    for backup, least in zip(backups_in(folder), acknowledged, strict=True):
        assert verify_backup(backup).faults == ()
        with closing(sqlite3.connect(backup / "hub.sqlite")) as connection:
            (stored,) = connection.execute("SELECT count(*) FROM outcome").fetchone()
        assert stored >= least
