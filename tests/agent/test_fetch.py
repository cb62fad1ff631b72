"""Downloads: bytes are fetched once, fit on the disk and match the announced digest."""

from collections.abc import Iterable, Iterator, Mapping

import pytest

from edgefleet.agent import limits
from edgefleet.agent.fetch import Fetcher
from edgefleet.agent.transfer import DamagedTransferError
from edgefleet.agent.trust import Trust
from edgefleet.agent.worker import Stopped, Token
from edgefleet.base.clock import SystemClock
from edgefleet.base.errors import DeviceError, EdgefleetError, NetworkError, PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.base.network import Answer, Download
from edgefleet.protocol.release import Artifact, ReleaseManifest
from edgefleet.protocol.wire import encode, problem
from support.agent_world import manifest
from support.memory_storage import MemoryStorage

DATA = bytes(range(256)) * 40
ARTIFACT = Artifact(sha256=sha256_hex(DATA), size_bytes=len(DATA))
PART = f"models/digits/b/model.onnx.{ARTIFACT.sha256[:16]}.part"
MODEL = "models/digits/b/model.onnx"


class Hub:
    """A link whose next download can break, ignore ranges or return another body."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.break_after: int | None = None
        self.ranges_known = True
        self.headers: dict[str, str] = {}
        self.error: EdgefleetError | None = None
        self.asked: list[str] = []
        self.chunk = 1000

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        return Answer(200, self.headers, self.data)

    def download(
        self, path: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 10.0
    ) -> Download:
        said = (headers or {}).get("Range", "")
        self.asked.append(said)
        if self.error is not None:
            body = encode(problem(self.error))
            return Download(self.error.status, {}, iter([body]))
        ranged = bool(said) and self.ranges_known
        start = int(said.removeprefix("bytes=").rstrip("-")) if ranged else 0
        place = {"content-range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if ranged else {}
        headers = place | self.headers
        return Download(206 if ranged else 200, headers, self._chunks(self.data[start:]))

    def _chunks(self, rest: bytes) -> Iterable[bytes]:  # type: ignore[misc] - a generator
        sent = 0
        for start in range(0, len(rest), self.chunk):
            if self.break_after is not None and sent >= self.break_after:
                self.break_after = None
                raise NetworkError("connection_lost", "cut")
            yield rest[start : start + self.chunk]
            sent += self.chunk

    def close(self) -> None:
        return


@pytest.fixture
def disk() -> MemoryStorage:
    return MemoryStorage()


def fetcher(disk: MemoryStorage, hub: Hub, **more: int) -> Fetcher:
    return Fetcher(disk, hub, dict, SystemClock(), **more)  # type: ignore[arg-type] - a generator is an iterator


def test_a_broken_download_goes_on_where_it_stopped(disk: MemoryStorage) -> None:
    hub = Hub()
    hub.break_after = 3000
    with pytest.raises(NetworkError):
        fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert disk.files[PART] == DATA[:3000]
    fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert (disk.files, hub.asked) == ({MODEL: DATA}, ["", "bytes=3000-"])


def test_what_is_there_is_not_asked_for(disk: MemoryStorage) -> None:
    hub = Hub()
    disk.files[MODEL] = DATA
    fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert hub.asked == []


def test_what_the_other_slot_holds_is_copied(disk: MemoryStorage) -> None:
    hub = Hub()
    disk.files["models/digits/a/model.onnx"] = DATA
    fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert (disk.files[MODEL], hub.asked) == (DATA, [])


def test_what_stood_there_before_makes_way_first(disk: MemoryStorage) -> None:
    disk.files = {MODEL: b"old" * 100, "models/digits/b/model.onnx.0123.part": b"half", "keep": b""}
    fetcher(disk, Hub()).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert disk.files == {MODEL: DATA, "keep": b""}


def test_other_bytes_than_announced_are_refused_and_leave_nothing(disk: MemoryStorage) -> None:
    hub = Hub(DATA[:-1] + b"?")
    with pytest.raises(DamagedTransferError) as damaged:
        fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert (damaged.value.found, damaged.value.refusal) == (sha256_hex(hub.data), "digest_mismatch")
    assert (damaged.value.code, disk.files, len(hub.asked)) == ("transfer_damaged", {}, 1)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"content-type": "text/html; charset=utf-8"}, "a login page answered"),
        ({"content-encoding": "gzip"}, "changed the encoding"),
        ({"content-length": "17"}, "announces 17 bytes"),
        ({"content-range": "bytes 0-9999/10000"}, "The range of the answer is bytes 0-9999"),
        ({"content-range": ""}, "is missing"),
    ],
)
def test_an_answer_that_is_another_one_leaves_the_part_as_it_is(
    disk: MemoryStorage, headers: dict[str, str], text: str
) -> None:
    hub = Hub()
    disk.files[PART] = DATA[:5000]
    hub.headers = headers
    with pytest.raises(DamagedTransferError, match=text) as damaged:
        fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert (damaged.value.found, disk.files) == ("", {PART: DATA[:5000]})


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_manifest_that_is_none_is_damage_in_transit(disk: MemoryStorage, kind: str) -> None:
    hub = Hub(b"<html>Please log in</html>")
    hub.headers = {"content-type": kind}
    with pytest.raises(DamagedTransferError) as damaged:
        fetcher(disk, hub).manifest("digits", "b", "0" * 64, Trust(()).open)
    assert (damaged.value.found != "") == (kind == "application/json")
    assert disk.files == {}


def test_a_part_that_was_spoilt_is_fetched_again_from_the_start(disk: MemoryStorage) -> None:
    hub = Hub()
    disk.files[PART] = b"?" * 5000
    fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert (disk.files, hub.asked) == ({MODEL: DATA}, ["bytes=5000-", ""])


def test_more_bytes_than_announced_are_refused_before_they_fill_the_disk(
    disk: MemoryStorage,
) -> None:
    with pytest.raises(DamagedTransferError, match="more bytes"):
        fetcher(disk, Hub(DATA * 100)).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert disk.files == {}


def test_a_hub_that_knows_no_ranges_is_read_from_the_start(disk: MemoryStorage) -> None:
    hub = Hub()
    hub.ranges_known = False
    disk.files[PART] = DATA[:5000]
    fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert disk.files == {MODEL: DATA}


def test_a_disk_without_room_is_found_before_the_download(disk: MemoryStorage) -> None:
    hub = Hub()
    disk.capacity_bytes = limits.DISK_MARGIN_BYTES + len(DATA) - 1
    with pytest.raises(DeviceError) as full:
        fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert (full.value.code, hub.asked, disk.files) == ("disk_full", [], {})
    disk.capacity_bytes += 1
    fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert disk.files == {MODEL: DATA}


def test_the_hubs_own_error_comes_through(disk: MemoryStorage) -> None:
    hub = Hub()
    hub.error = DeviceError("credential_invalid", "no")
    with pytest.raises(DeviceError) as refused:
        fetcher(disk, hub).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert refused.value.code == "credential_invalid"


def test_a_stopped_fetch_keeps_what_it_has(
    disk: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLUSH_BYTES", 1)
    token = Token()
    before = disk.append

    def stop_after_first(path: str, data: bytes) -> None:
        before(path, data)
        token.stop()

    monkeypatch.setattr(disk, "append", stop_after_first)
    with pytest.raises(Stopped):
        fetcher(disk, Hub()).file("digits", "b", "model.onnx", ARTIFACT, token)
    assert disk.files == {PART: DATA[:1000]}


def test_memory_is_bounded_whatever_the_size(
    disk: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLUSH_BYTES", 2500)
    fetcher(disk, Hub()).file("digits", "b", "model.onnx", ARTIFACT, Token())
    appended = [one for one in disk.operations if one.startswith("append")]
    assert len(appended) == 4  # 3000 bytes at a time, and the rest


def test_a_manifest_is_kept_only_once_its_signature_was_checked(disk: MemoryStorage) -> None:
    def stranger(_: bytes) -> tuple[str, ReleaseManifest]:
        raise PublisherError("signature_invalid", "no")

    with pytest.raises(DamagedTransferError) as damaged:
        fetcher(disk, Hub()).manifest("digits", "b", "d", stranger)
    assert damaged.value.refusal == "signature_invalid", "if the same bytes come again and again"
    assert disk.files == {}

    def newer(_: bytes) -> tuple[str, ReleaseManifest]:
        raise DeviceError("manifest_unreadable", "FP4")

    with pytest.raises(DeviceError, match="FP4") as unreadable:
        fetcher(disk, Hub()).manifest("digits", "b", "d", newer)
    assert unreadable.value.code == "manifest_unreadable", "another download has the same bytes"
    assert disk.files == {}
    opened = fetcher(disk, Hub()).manifest("digits", "b", "d", lambda _: ("d", manifest("2")))
    assert opened == ("d", manifest("2"))
    assert disk.files == {"models/digits/b/manifest.next.json": DATA}


def test_the_envelope_of_the_previous_release_stays_until_its_files_go(disk: MemoryStorage) -> None:
    disk.files["models/digits/b/manifest.json"] = b"previous"
    mine = fetcher(disk, Hub())
    mine.manifest("digits", "b", "d", lambda data: ("d" if data == DATA else "", manifest("2")))
    assert disk.files["models/digits/b/manifest.json"] == b"previous"
    mine.file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert disk.files["models/digits/b/manifest.json"] == DATA
    assert "models/digits/b/manifest.next.json" not in disk.files


def test_a_manifest_on_the_disk_is_not_downloaded_again(disk: MemoryStorage) -> None:
    hub, read = Hub(), list[bytes]()

    def opened(data: bytes) -> tuple[str, ReleaseManifest]:
        read.append(data)
        return "0" * 64, manifest("2")

    for _ in range(2):
        fetcher(disk, hub).manifest("digits", "b", "0" * 64, opened)
        hub.data = b"of another release"
    assert read == [DATA, DATA]


def test_the_files_of_the_slot_count_as_room_for_the_download(disk: MemoryStorage) -> None:
    disk.capacity_bytes = 10_000
    disk.files = {MODEL: b"old" * 100, PART: b"half", "models/digits/b/manifest.json": DATA}
    free_bytes, slot_bytes = fetcher(disk, Hub()).space("digits", "b")
    assert (free_bytes, slot_bytes) == (10_000 - 304 - len(DATA), 304)


def test_a_bound_on_speed_makes_the_download_wait(disk: MemoryStorage) -> None:
    class Stopwatch(SystemClock):
        def monotonic(self) -> float:
            return 0.0

    class Patient(Token):
        def __init__(self) -> None:
            super().__init__()
            self.waits_s: list[float] = []

        def check(self, wait_s: float = 0.0) -> None:
            if wait_s:
                self.waits_s.append(wait_s)

    token, hub = Patient(), Hub()
    hub.chunk = 4096
    bounded = Fetcher(disk, hub, dict, Stopwatch(), bytes_per_s=1024)  # type: ignore[arg-type] - a generator is an iterator
    bounded.file("digits", "b", "model.onnx", ARTIFACT, token)
    assert token.waits_s == [4.0, 8.0, 10.0]


def test_a_refusal_without_end_is_not_read_to_its_end() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1 << 16
            yield bytes(1 << 16)

    class Endless(Hub):
        def download(self, *_: object, **__: object) -> Download:
            return Download(500, {}, endless())

    with pytest.raises(EdgefleetError):
        fetcher(MemoryStorage(), Endless()).file("digits", "b", "model.onnx", ARTIFACT, Token())
    assert taken <= 4 * limits.PROBLEM_BYTES
