"""Uploaded files are read in a child with limits: the hub refuses a hostile one and goes on."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgefleet.base.errors import EdgefleetError
from edgefleet.hub import file_reader as reader_module
from edgefleet.hub.blobs import Blobs
from edgefleet.hub.file_reader import FileReader
from edgefleet.protocol.release import ReleaseManifest
from edgefleet.security.signing import PublisherKey
from support.bombs import protobuf_bomb, with_model
from support.hub_process import HubProcess, running_hub
from support.raw_device import RawDevice, enrolled
from support.tiny_releases import TinyRelease, publish, tiny_release


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def stored(release: TinyRelease, folder: Path) -> Blobs:
    blobs = Blobs(folder, max_bytes=1 << 30)
    for digest, path in release.files.items():
        asyncio.run(blobs.put(digest, _whole(path.read_bytes())))
    return blobs


def check(reader: FileReader, manifest: ReleaseManifest) -> EdgefleetError | None:
    try:
        asyncio.run(reader.check(manifest))
    except EdgefleetError as error:
        return error
    return None


def bomb(folder: Path, size_bytes: int) -> TinyRelease:
    path = folder / f"bomb-{size_bytes}.onnx"
    path.write_bytes(protobuf_bomb(size_bytes))
    return with_model(tiny_release(folder), path)


@pytest.mark.long
def test_a_file_that_reaches_a_limit_is_refused_by_name_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tiny_release(tmp_path)
    hostile = bomb(tmp_path, 2 << 20)
    blobs = stored(good, tmp_path / "blobs")
    stored(hostile, tmp_path / "blobs")
    digest = hostile.manifest.variants[0].artifact.sha256
    reader = FileReader(blobs)
    try:
        monkeypatch.setattr(reader_module, "READER_MEMORY_BYTES", 128 << 20)
        refused = check(reader, hostile.manifest)
        assert refused is not None
        assert (refused.code, refused.field) == ("artifact_unreadable", "variants[0].artifact")
        assert digest in refused.message
        assert "MiB of memory" in refused.message
        assert check(reader, good.manifest) is None
    finally:
        reader.close()


@pytest.mark.long
def test_a_file_that_is_never_read_to_its_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tiny_release(tmp_path)
    blobs = stored(good, tmp_path / "blobs")
    model = blobs.path(good.manifest.variants[0].artifact.sha256)
    reader = FileReader(blobs)
    try:
        assert check(reader, good.manifest) is None
        model.unlink()
        os.mkfifo(model)  # without a writer: a read of it never ends
        monkeypatch.setattr(Blobs, "path", lambda self, digest: self._place(digest))
        monkeypatch.setattr(reader_module, "READER_CPU_S", 0.05)
        refused = check(reader, good.manifest)
    finally:
        reader.close()
    assert refused is not None
    assert refused.code == "artifact_unreadable"
    assert "longer than" in refused.message


@pytest.mark.long
def test_a_reader_that_was_killed_is_started_again(tmp_path: Path) -> None:
    good = tiny_release(tmp_path)
    reader = FileReader(stored(good, tmp_path / "blobs"))
    try:
        assert check(reader, good.manifest) is None
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        assert check(reader, good.manifest) is None
    finally:
        reader.close()
    closed = check(reader, good.manifest)
    assert closed is not None
    assert closed.code == "overloaded"


def test_the_hub_reads_no_model_and_survives_what_would_be_one(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data") as hub:
        client, key = hub.client(), PublisherKey.generate()
        (device,) = enrolled(client, hub.url, 1)
        publish(client, key, tiny_release(tmp_path, "good"))
        refusal = refused_while_checking_in(hub, key, device, bomb(tmp_path, 10 << 20))
        assert refusal.code == "artifact_unreadable"
        maps = Path(f"/proc/{hub.pid}/maps").read_text()
        assert "/onnx" not in maps  # the reader of models was never loaded
        assert "numpy" in maps  # and the list has what is loaded


@pytest.mark.long
@pytest.mark.parametrize("size_mib", [1, 10, 40])
def test_a_bomb_does_not_grow_the_hub(tmp_path: Path, size_mib: int) -> None:
    with running_hub(tmp_path / "data") as hub:
        client, key = hub.client(), PublisherKey.generate()
        (device,) = enrolled(client, hub.url, 1)
        hostile = bomb(tmp_path, size_mib << 20)
        before = peak_mib(hub)
        refusal = refused_while_checking_in(hub, key, device, hostile)
        assert refusal.field is not None
        assert refusal.field.startswith("variants[0].artifact")
        assert peak_mib(hub) - before < 32  # an upload is copied in pieces of a MiB


def refused_while_checking_in(
    hub: HubProcess, key: PublisherKey, device: RawDevice, release: TinyRelease
) -> EdgefleetError:
    """The refusal of a release. Meanwhile the device checks in, at least twice."""
    refusals: list[EdgefleetError] = []

    def send() -> None:
        try:
            publish(hub.client(), key, release)
        except EdgefleetError as error:
            refusals.append(error)

    sending = threading.Thread(target=send)
    sending.start()
    checkins = 0
    while sending.is_alive() or checkins < 2:
        device.check_in()
        checkins += 1
    sending.join()
    (refusal,) = refusals
    return refusal


def children() -> list[int]:
    """The readers that this process started."""
    me = os.getpid()
    tasks = Path(f"/proc/{me}/task").iterdir()
    found = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return [
        pid for pid in found if b"file_reader_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def peak_mib(hub: HubProcess) -> float:
    """The most memory that the hub had so far, in MiB."""
    lines = Path(f"/proc/{hub.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
