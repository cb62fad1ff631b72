"""Every single-bit flip and every cut of the agent's own files: the confirmed release is served.

No hub is asked. With the short test each file is damaged at some of its places, with the long test
at all of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.agent.effect import Apply
from edgefleet.agent.event import Booted
from edgefleet.agent.link import CREDENTIAL, Credential, load_credential
from edgefleet.agent.lost_state import recover
from edgefleet.agent.own_files import OwnFile
from edgefleet.agent.slots import POINTER, STATE, Slots
from edgefleet.agent.state import AgentState
from edgefleet.agent.step import step
from edgefleet.agent.trust import Trust
from edgefleet.base.errors import OperatorError
from edgefleet.base.storage import FolderStorage
from edgefleet.protocol.wire import encode
from support.agent_world import FACTS, model_bytes
from support.device_world import KEY, World
from support.memory_storage import MemoryStorage
from support.own_files import content, copies, lose

TRUST = Trust((KEY.public.text,))
CREDENTIALS = Credential(
    hub="http://hub", device="d", token="efd1.0.d.tag", checkin_url="http://hub", interval_s=60.0
)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The disk of a device on release 2, whose other slot has the release before."""
    world = World()
    world.boot()
    world.start()
    for release in ("1", "2"):
        world.offer(release)
        world.run_until_told(release)
    OwnFile(world.storage, CREDENTIAL).write(encode(CREDENTIALS))
    return world.storage.files


def served(files: dict[str, bytes]) -> tuple[str | None, Credential | None]:
    """The confirmed release that is served after a start without a hub, and the identity."""
    disk = MemoryStorage()
    disk.files = dict(files)
    slots = Slots(disk)
    state = slots.load() or recover(slots, FACTS.profile, TRUST.open, 2000.0)
    booted = Booted(
        facts=FACTS, whole=slots.whole(state), pointer=slots.pointer(), serving=None, draw=0.5
    )
    _, effects = step(state, booted, 2000.0)
    applied = [one for one in effects if isinstance(one, Apply)]
    if not applied:
        return None, load_credential(disk)
    (model,) = applied[-1].models
    assert model.trial is None
    assert model.confirmed is not None
    found = disk.files[f"models/digits/{model.confirmed.slot}/model.onnx"]
    release = model.confirmed.installed.release
    assert found == model_bytes(release)
    return release, load_credential(disk)


def damaged(data: bytes, every: int) -> Iterator[bytes]:
    """``data`` with one bit changed, and cut, at each of ``every`` places."""
    for bit in range(0, 8 * len(data), every):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
    for length in range(0, len(data), max(1, every // 8)):
        yield data[:length]


def own_files() -> list[str]:
    return [place for name in (STATE, POINTER, CREDENTIAL) for place in copies(name)]


def sweep(files: dict[str, bytes], place: str, every: int) -> int:
    tried = 0
    for data in damaged(files[place], every):
        assert served(files | {place: data}) == ("2", CREDENTIALS), (place, tried)
        tried += 1
    return tried


@pytest.mark.parametrize("place", own_files())
def test_a_damaged_own_file_costs_neither_the_release_nor_the_identity(
    files: dict[str, bytes], place: str
) -> None:
    assert sweep(files, place, every=203) >= 5


@pytest.mark.long
@pytest.mark.parametrize("place", own_files())
def test_no_damage_of_an_own_file_costs_the_release(files: dict[str, bytes], place: str) -> None:
    assert sweep(files, place, every=1) >= 8 * len(files[place])


@pytest.mark.parametrize("place", copies(POINTER))
def test_a_lost_state_is_rebuilt_with_a_damaged_copy_of_the_pointer(
    files: dict[str, bytes], place: str
) -> None:
    left = dict(files)
    lose(left, STATE)
    for data in damaged(files[place], 1):
        assert served(left | {place: data})[0] == "2"


def test_both_copies_of_the_state_may_be_damaged(files: dict[str, bytes]) -> None:
    first, second = copies(STATE)
    for data in damaged(files[first], 997):
        assert served(files | {first: data, second: data[::-1]})[0] == "2"


@pytest.mark.parametrize("name", ["manifest.json", "golden.npz"])
def test_a_damaged_file_that_serving_does_not_read_costs_nothing(
    files: dict[str, bytes], name: str
) -> None:
    found = [place for place in files if place.endswith(name)]
    assert len(found) == 2
    for place in found:
        assert served(files | {place: b""})[0] == "2"


def test_a_damaged_model_gives_way_to_the_release_before(files: dict[str, bytes]) -> None:
    active = next(
        place
        for place, data in files.items()
        if place.endswith("model.onnx") and data == model_bytes("2")
    )
    assert served(files | {active: files[active][:-1]})[0] == "1"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"version":3', b'"version":4'),
        (b'"attempts":', b'"tomorrow":1,"attempts":'),
        (b'"proved":true', b'"tomorrow":true,"proved":true'),
    ],
)
def test_a_state_with_an_unknown_version_or_key_is_refused_and_left_alone(
    files: dict[str, bytes], before: bytes, after: bytes
) -> None:
    disk = MemoryStorage()
    disk.files = dict(files)
    newer = content(files, STATE).replace(before, after)
    OwnFile(disk, STATE).write(newer)
    with pytest.raises(OperatorError) as refused:
        Slots(disk).load()
    assert refused.value.code == "store_foreign"
    assert content(disk.files, STATE) == newer


def test_a_file_that_cannot_be_read_counts_as_missing(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    file = OwnFile(storage, STATE)
    file.write(b"one")
    (tmp_path / STATE).unlink()
    (tmp_path / STATE).mkdir()
    os.chmod(tmp_path / file.second, 0o000)  # noqa: PTH101 - the mode of a file, not of a folder
    assert list(file.contents()) in ([(b"one", True)], []), "root reads it, others do not"
    file.write(b"two")
    assert list(file.contents()) == [(b"two", True)] * 2


def test_a_state_that_was_rebuilt_is_stored_with_both_copies(files: dict[str, bytes]) -> None:
    disk = MemoryStorage()
    disk.files = dict(files)
    disk.files[STATE] = b""
    slots = Slots(disk)
    state = slots.load()
    assert isinstance(state, AgentState)
    assert slots.save(content(files, STATE))
    assert {place: disk.files[place] for place in copies(STATE)} == {
        place: files[place] for place in copies(STATE)
    }
