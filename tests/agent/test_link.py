"""Enrolment and check-ins over real HTTP."""

from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from edgefleet.agent import link as agent_link
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.fetch import ARTIFACT_PATH, MANIFEST_PATH
from edgefleet.agent.link import Credential, HubLink, enrol, load_credential
from edgefleet.base.entropy import SeededEntropy
from edgefleet.base.errors import DeviceError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.base.storage import FolderStorage
from edgefleet.cli.demo.processes import reserve_port
from edgefleet.protocol.api import BY_NAME
from edgefleet.protocol.device import CheckIn
from support.agent_world import FACTS
from support.fake_hub import FakeHub, fake_hub

SAID = CheckIn(protocol=1, seq=1)


@pytest.fixture
def hub() -> Generator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


def enrolled(hub: FakeHub, storage: FolderStorage) -> Credential:
    return enrol(
        HttpLink(hub.url),
        storage,
        hub=hub.url,
        claim="claim-1",
        name="device",
        facts=FACTS,
        labels={"site": "lyon"},
    )


def linked(credential: Credential, storage: FolderStorage) -> HubLink:
    return HubLink(credential, storage, HttpLink, SeededEntropy(1))


def test_the_paths_are_those_of_the_table() -> None:
    assert BY_NAME["enrol"].path == agent_link.ENROL_PATH
    assert BY_NAME["endpoints"].path == agent_link.ENDPOINTS_PATH
    assert BY_NAME["checkin"].path == agent_link.CHECKIN_PATH
    assert BY_NAME["device_manifest"].path == MANIFEST_PATH + "{sha256}"
    assert BY_NAME["device_artifact"].path == ARTIFACT_PATH + "{sha256}"


def test_a_credential_is_kept_for_its_hub_alone(hub: FakeHub, storage: FolderStorage) -> None:
    credential = enrolled(hub, storage)
    assert load_credential(storage, hub.url) == credential
    assert load_credential(storage, "http://another:1") is None


def test_a_claim_that_was_used_raises_and_keeps_nothing(
    hub: FakeHub, storage: FolderStorage
) -> None:
    hub.claims.clear()
    with pytest.raises(DeviceError) as used:
        enrolled(hub, storage)
    assert used.value.code == "claim_used"
    assert load_credential(storage, hub.url) is None


def test_a_check_in_is_answered(hub: FakeHub, storage: FolderStorage) -> None:
    link = linked(enrolled(hub, storage), storage)
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    assert hub.check_ins == [SAID]
    link.close()


def test_a_replayed_check_in_says_where_to_go_on(hub: FakeHub, storage: FolderStorage) -> None:
    link = linked(enrolled(hub, storage), storage)
    hub.last_seq = 41
    failed = link.check_in(SAID)
    assert isinstance(failed, CheckInFailed)
    assert (failed.code, failed.next_seq) == ("checkin_replayed", 42)
    link.close()


def test_a_hub_that_moved_its_listener_is_found_again(hub: FakeHub, storage: FolderStorage) -> None:
    before = enrolled(hub, storage)
    with reserve_port() as nobody:  # no server listens there
        port = nobody.getsockname()[1]
        gone = msgspec.structs.replace(before, checkin_url=f"http://127.0.0.1:{port}")
        link = linked(gone, storage)
        failed = link.check_in(SAID)
    assert isinstance(failed, CheckInFailed)
    assert failed.code == "unreachable"
    assert load_credential(storage, hub.url) == before, "and stored for the next start"
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    link.close()


@pytest.mark.parametrize(
    ("how", "code"), [("offline", "connection_lost"), ("failing", "answer_malformed")]
)
def test_a_hub_in_trouble_is_a_failure_to_be_tried_again(
    hub: FakeHub, storage: FolderStorage, how: str, code: str
) -> None:
    link = linked(enrolled(hub, storage), storage)
    setattr(hub, how, True)
    failed = link.check_in(SAID)
    assert isinstance(failed, CheckInFailed)
    assert failed.code == code
    link.close()


@pytest.mark.parametrize(
    "odd", ["http://hub:port", "unix:/run/other.sock", "http://[::1", "nonsense", ""]
)
def test_a_check_in_address_that_is_none_is_asked_for_again(
    hub: FakeHub, storage: FolderStorage, odd: str
) -> None:
    credential = msgspec.structs.replace(enrolled(hub, storage), checkin_url=odd)
    link = linked(credential, storage)
    assert isinstance(link.check_in(SAID), CheckInFailed)
    assert isinstance(link.check_in(msgspec.structs.replace(SAID, seq=2)), CheckInAnswered)


def test_an_answer_nested_without_end_is_a_check_in_that_failed(
    hub: FakeHub, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = linked(enrolled(hub, storage), storage)
    deep = Answer(200, {}, b'{"interval_s": 1, "more": ' + b"[" * 100_000)

    def answer(*_: object, **__: object) -> Answer:
        return deep

    monkeypatch.setattr(HttpLink, "request", answer)
    assert isinstance(failed := link.check_in(SAID), CheckInFailed)
    assert failed.code == "answer_malformed"
