import errno
import os
import stat
from pathlib import Path

import pytest

from edgefleet.base.errors import DeviceError
from edgefleet.base.ids import sha256_hex
from edgefleet.base.storage import FolderStorage


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "data")


def test_what_is_written_is_read(storage: FolderStorage) -> None:
    assert storage.read("slots/a/model") is None
    storage.write("slots/a/model", b"one")
    storage.append("slots/a/model", b"two")
    assert storage.read("slots/a/model") == b"onetwo"
    assert storage.size("slots/a/model") == 6
    assert storage.digest("slots/a/model") == sha256_hex(b"onetwo")
    assert storage.list("slots") == ("a",)


def test_a_write_replaces_the_file_whole_and_leaves_nothing_beside_it(
    storage: FolderStorage, tmp_path: Path
) -> None:
    storage.write("pointer", b"a")
    storage.write("pointer", b"b")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["pointer"]
    assert storage.read("pointer") == b"b"


def test_a_pipe_in_place_of_a_file_holds_nobody_up(storage: FolderStorage, tmp_path: Path) -> None:
    storage.write("f", b"old")
    for name in ("g", ".f.new"):
        os.mkfifo(tmp_path / "data" / name)
    assert (storage.read("g"), storage.digest("g")) == (b"", sha256_hex(b""))
    with pytest.raises(DeviceError) as caught:
        storage.append("g", b"x")
    assert caught.value.code == "disk_failed"
    storage.write("f", b"new")
    (tmp_path / "data" / ".f.new" / "inside").mkdir(parents=True)
    storage.write("f", b"newer")
    (tmp_path / "data" / ".g.new").symlink_to(tmp_path / "elsewhere")
    storage.copy("f", "g")
    assert (storage.read("f"), storage.read("g")) == (b"newer", b"newer")
    assert not (tmp_path / "elsewhere").exists()


def test_file_and_folder_are_made_durable_in_that_order(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("f", b"old")
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def see_fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def see_replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", see_fsync)
    monkeypatch.setattr(Path, "replace", see_replace)
    storage.write("f", b"new")
    assert calls == ["file", "rename", "folder"]


def test_a_full_disk_is_the_devices_to_mend_and_keeps_the_old_file(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("f", b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceError) as caught:
        storage.write("f", b"new")
    assert caught.value.code == "disk_full"
    assert storage.read("f") == b"old"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EROFS, "disk_readonly"), (errno.EIO, "disk_failed")],
)
def test_an_error_names_the_path_and_what_the_operating_system_says(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    storage.write("models/f", b"old")

    def fail(*_: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(Path, "replace", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    monkeypatch.setattr("edgefleet.base.storage._content", fail)
    path, text = storage.locate("models/f"), os.strerror(number)
    for write in (
        lambda: storage.write("models/f", b"new"),
        lambda: storage.append("models/f", b"new"),
        lambda: storage.rename("models/f", "models/f"),
        lambda: storage.copy("models/f", "models/f"),
        lambda: storage.remove("models/f"),
    ):
        with pytest.raises(DeviceError) as caught:
            write()
        assert (caught.value.code, caught.value.message) == (
            code,
            f"{path} cannot be written ({text}).",
        )
    with pytest.raises(DeviceError, match="cannot be read") as caught:
        storage.read("models/f")
    assert caught.value.message == f"{path} cannot be read ({text})."


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd"])
def test_paths_stay_inside(storage: FolderStorage, path: str) -> None:
    with pytest.raises(ValueError, match="leads out of the storage folder"):
        storage.read(path)


def test_removing_is_safe_to_repeat(storage: FolderStorage) -> None:
    storage.write("slots/b/model", b"x")
    storage.remove("slots/b")
    storage.remove("slots/b")
    storage.remove("never/was")
    assert storage.list("slots") == ()


def test_rename_replaces(storage: FolderStorage) -> None:
    storage.write("a.part", b"new")
    storage.write("slots/a/model", b"old")
    storage.rename("a.part", "slots/a/model")
    assert storage.read("slots/a/model") == b"new"
    assert storage.read("a.part") is None
