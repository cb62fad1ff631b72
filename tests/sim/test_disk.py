import pytest

from edgefleet.base.errors import DeviceError
from edgefleet.base.ids import sha256_hex
from edgefleet.base.storage import FolderStorage, Storage
from edgefleet.sim.load.disk import Shelf, VirtualDisk


@pytest.fixture(params=["virtual", "folder"])
def disk(request: pytest.FixtureRequest, tmp_path) -> Storage:
    return VirtualDisk(Shelf(), 1 << 20) if request.param == "virtual" else FolderStorage(tmp_path)


def test_a_virtual_disk_does_what_a_real_folder_does(disk: Storage) -> None:
    disk.write("slots/a/model.onnx", b"one")
    disk.append("slots/a/model.onnx", b" two")
    disk.append("new", b"n")
    disk.rename("slots/a/model.onnx", "slots/b/model.onnx")
    assert disk.read("slots/a/model.onnx") is None
    assert disk.read("slots/b/model.onnx") == b"one two"
    assert disk.size("slots/b/model.onnx") == 7
    assert disk.digest("slots/b/model.onnx") == sha256_hex(b"one two")
    assert disk.digest("slots/c") is None
    assert disk.list("slots/b") == ("model.onnx",)
    assert disk.list("nothing") == ()
    disk.remove("slots/b")
    disk.remove("slots/b")
    assert disk.size("slots/b/model.onnx") is None
    with pytest.raises(ValueError, match="leads out of the storage folder"):
        disk.write("../out", b"")
    with pytest.raises(DeviceError, match="disk_failed"):
        disk.rename("nothing", "new")


def test_a_full_disk_refuses_and_keeps_what_it_had() -> None:
    disk = VirtualDisk(Shelf(), 100)
    disk.write("state", b"s" * 60)
    with pytest.raises(DeviceError, match="disk_full"):
        disk.write("state", b"t" * 50)  # both exist for a moment
    with pytest.raises(DeviceError, match="disk_full"):
        disk.append("log", b"l" * 41)
    assert disk.read("state") == b"s" * 60
    assert disk.free_bytes() == 40
    disk.remove("state")
    assert disk.free_bytes() == 100


def test_devices_share_one_copy_of_large_files() -> None:
    shelf = Shelf()
    first, second = VirtualDisk(shelf, 1 << 20), VirtualDisk(shelf, 1 << 20)
    first.write("model", b"m" * 50_000)
    second.write("model", bytes(bytearray(b"m" * 50_000)))
    assert first.read("model") is second.read("model")
    assert second.used_bytes == 50_000
    second.append("model", b"!")
    assert first.digest("model") == sha256_hex(b"m" * 50_000)
    assert second.digest("model") == sha256_hex(b"m" * 50_000 + b"!")
