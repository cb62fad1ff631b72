"""Enrolment and check-ins over real HTTP."""

from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from edgefleet.agent import link as agent_link
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.fetch import ARTIFACT_PATH, MANIFEST_PATH
from edgefleet.agent.link import (
    CREDENTIAL,
    Credential,
    Enrolment,
    HubLink,
    Unenrolled,
    _retry_after_s,
    enrol,
    load_credential,
)
from edgefleet.agent.no_link import link_to
from edgefleet.agent.own_files import OwnFile
from edgefleet.base.entropy import SeededEntropy
from edgefleet.base.errors import DeviceError
from edgefleet.base.network import Answer, HttpLink
from edgefleet.base.storage import FolderStorage
from edgefleet.cli.demo.processes import reserve_port
from edgefleet.protocol.api import BY_NAME
from edgefleet.protocol.device import CheckIn
from edgefleet.protocol.wire import encode
from support.agent_world import FACTS
from support.fake_hub import FakeHub, fake_hub
from support.own_files import copies

SAID = CheckIn(protocol=1, seq=1)
ENROLMENT = Enrolment(claim="claim-1", name="device", facts=FACTS, labels={"site": "lyon"})


@pytest.fixture
def hub() -> Generator[FakeHub]:
    with fake_hub() as running:
        yield running


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


def enrolled(hub: FakeHub, storage: FolderStorage) -> Credential:
    return enrol(HttpLink(hub.url), storage, hub.url, ENROLMENT, "key")


def linked(
    hub: FakeHub, credential: Credential | None, storage: FolderStorage, **more: bool
) -> HubLink:
    return HubLink(
        hub.url, credential, ENROLMENT, storage, HttpLink, entropy=SeededEntropy(1), **more
    )


def test_the_paths_are_those_of_the_table() -> None:
    assert BY_NAME["enrol"].path == agent_link.ENROL_PATH
    assert BY_NAME["endpoints"].path == agent_link.ENDPOINTS_PATH
    assert BY_NAME["checkin"].path == agent_link.CHECKIN_PATH
    assert BY_NAME["device_manifest"].path == MANIFEST_PATH + "{sha256}"
    assert BY_NAME["device_artifact"].path == ARTIFACT_PATH + "{sha256}"


@pytest.mark.parametrize("spelling", ["{}/", "http://localhost:{port}", "HTTP://127.0.0.1:{port}"])
def test_a_hub_is_the_same_under_another_address(
    hub: FakeHub, storage: FolderStorage, spelling: str
) -> None:
    enrolled(hub, storage)
    hub.claims = {"claim-1"}
    hub.url = spelling.format(hub.url, port=hub.url.rpartition(":")[2])
    link = linked(hub, load_credential(storage), storage)
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    assert len(hub.enrolled) == 1, "the device is not new"
    link.close()


@pytest.mark.parametrize("damage", [b"", b"{", None])
@pytest.mark.parametrize("place", copies(CREDENTIAL))
def test_one_damaged_copy_of_the_credential_is_no_loss(
    hub: FakeHub, storage: FolderStorage, place: str, damage: bytes | None
) -> None:
    credential = enrolled(hub, storage)
    storage.remove(place)
    if damage is not None:
        storage.write(place, damage)
    assert load_credential(storage) == credential
    assert OwnFile(storage, CREDENTIAL).is_intact(encode(credential)), "and it is written again"


def test_a_credential_of_an_older_agent_is_read(hub: FakeHub, storage: FolderStorage) -> None:
    credential = enrolled(hub, storage)
    OwnFile(storage, CREDENTIAL).remove()
    storage.write(CREDENTIAL, encode(credential))
    assert load_credential(storage) == credential


def test_a_device_that_lost_its_credential_tries_again_until_it_is_enrolled(
    hub: FakeHub, storage: FolderStorage
) -> None:
    hub.claims.clear()
    link = linked(hub, None, storage)
    for _ in range(2):
        failed = link.check_in(SAID)
        assert isinstance(failed, CheckInFailed)
        assert failed.code == "claim_used"
    hub.claims = {"claim-1"}
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    assert load_credential(storage) == link.credential
    link.close()


def test_a_hub_without_a_valid_address_is_a_check_in_that_failed(
    hub: FakeHub, storage: FolderStorage
) -> None:
    credential = msgspec.structs.replace(enrolled(hub, storage), checkin_url="http://[::1")
    link = HubLink("no address", credential, ENROLMENT, storage, link_to, entropy=SeededEntropy(1))
    failed = link.check_in(SAID)
    assert isinstance(failed, CheckInFailed)
    assert failed.code == "setting_invalid"


def test_a_new_device_without_a_release_says_at_once_why_it_cannot_enrol(
    hub: FakeHub, storage: FolderStorage
) -> None:
    hub.claims.clear()
    with pytest.raises(Unenrolled, match="claim_used"):
        linked(hub, None, storage, must_enrol=True).check_in(SAID)


@pytest.mark.parametrize("code", ["credential_invalid", "device_removed"])
def test_a_credential_that_the_hub_does_not_accept_is_replaced_with_the_claim(
    hub: FakeHub, storage: FolderStorage, code: str
) -> None:
    hub.refuse_with = code
    foreign = msgspec.structs.replace(enrolled(hub, storage), token="of-another-hub")
    link = linked(hub, foreign, storage)
    failed = link.check_in(SAID)
    assert isinstance(failed, CheckInFailed)
    assert failed.code == code
    assert link.credential == foreign, "the claim was used, so the old one stays"
    hub.claims = {"claim-1"}
    link.check_in(SAID)
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    link.close()


def test_a_claim_that_was_used_raises_and_keeps_nothing(
    hub: FakeHub, storage: FolderStorage
) -> None:
    hub.claims.clear()
    with pytest.raises(DeviceError) as used:
        enrolled(hub, storage)
    assert used.value.code == "claim_used"
    assert load_credential(storage) is None


def test_a_check_in_is_answered(hub: FakeHub, storage: FolderStorage) -> None:
    link = linked(hub, enrolled(hub, storage), storage)
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    second = msgspec.structs.replace(SAID, seq=2)
    assert isinstance(link.check_in(second), CheckInAnswered)
    assert link.run > 0
    assert hub.check_ins == [msgspec.structs.replace(SAID, run=link.run), second]
    link.close()


def test_a_replayed_check_in_says_where_to_go_on(hub: FakeHub, storage: FolderStorage) -> None:
    link = linked(hub, enrolled(hub, storage), storage)
    hub.last_seq = 41
    failed = link.check_in(SAID)
    assert isinstance(failed, CheckInFailed)
    assert (failed.code, failed.next_seq) == ("checkin_replayed", 42)
    next_one, later = (msgspec.structs.replace(SAID, seq=seq) for seq in (42, 43))
    link.check_in(next_one)
    hub.last_seq = 50
    for said in (later, msgspec.structs.replace(SAID, seq=51)):
        link.check_in(said)
    assert [one.run for one in hub.check_ins if one.seq in (42, 51)] == [link.run, link.run]
    link.close()


def test_a_busy_hub_says_for_how_long(hub: FakeHub, storage: FolderStorage) -> None:
    link = linked(hub, enrolled(hub, storage), storage)
    hub.busy_s = 7
    failed = link.check_in(SAID)
    assert isinstance(failed, CheckInFailed)
    assert (failed.code, failed.retry_after_s) == ("overloaded", 7.0)
    hub.busy_s = None
    assert isinstance(link.check_in(msgspec.structs.replace(SAID, seq=2)), CheckInAnswered)
    link.close()


@pytest.mark.parametrize("value", ["", "-5", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "\u0665"])
def test_a_retry_after_without_whole_seconds_is_ignored(value: str) -> None:
    assert _retry_after_s(Answer(503, {"retry-after": value}, b"")) == 0.0


def test_an_answer_that_does_not_pass_asks_for_no_pause() -> None:
    assert _retry_after_s(Answer(409, {"retry-after": "5"}, b"")) == 0.0
    assert _retry_after_s(Answer(429, {"retry-after": "5"}, b"")) == 5.0


def test_a_hub_that_moved_its_listener_is_found_again(hub: FakeHub, storage: FolderStorage) -> None:
    before = enrolled(hub, storage)
    with reserve_port() as nobody:  # no server listens there
        port = nobody.getsockname()[1]
        gone = msgspec.structs.replace(before, checkin_url=f"http://127.0.0.1:{port}")
        link = linked(hub, gone, storage)
        failed = link.check_in(SAID)
    assert isinstance(failed, CheckInFailed)
    assert failed.code == "unreachable"
    assert load_credential(storage) == before, "and stored for the next start"
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    link.close()


@pytest.mark.parametrize(
    ("how", "code"), [("offline", "connection_lost"), ("failing", "answer_malformed")]
)
def test_a_hub_in_trouble_is_a_failure_to_be_tried_again(
    hub: FakeHub, storage: FolderStorage, how: str, code: str
) -> None:
    link = linked(hub, enrolled(hub, storage), storage)
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
    link = linked(hub, credential, storage)
    assert isinstance(link.check_in(SAID), CheckInFailed)
    assert isinstance(link.check_in(msgspec.structs.replace(SAID, seq=2)), CheckInAnswered)


def test_an_answer_nested_without_end_is_a_check_in_that_failed(
    hub: FakeHub, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = linked(hub, enrolled(hub, storage), storage)
    deep = Answer(200, {}, b'{"interval_s": 1, "more": ' + b"[" * 100_000)

    def answer(*_: object, **__: object) -> Answer:
        return deep

    monkeypatch.setattr(HttpLink, "request", answer)
    assert isinstance(failed := link.check_in(SAID), CheckInFailed)
    assert failed.code == "answer_malformed"


@pytest.mark.parametrize("answers", ["page", "credential_invalid", "device_removed"])
def test_a_hub_whose_address_another_server_has_now_is_found_again(
    hub: FakeHub, storage: FolderStorage, answers: str
) -> None:
    before = enrolled(hub, storage)
    with fake_hub() as other:
        other.token, other.refuse_with = "of another device", answers
        other.failing = answers == "page"
        link = linked(hub, msgspec.structs.replace(before, checkin_url=other.url), storage)
        failed = link.check_in(SAID)
        assert isinstance(failed, CheckInFailed)
        assert failed.code == ("answer_malformed" if answers == "page" else answers)
        assert isinstance(link.check_in(SAID), CheckInAnswered)
        assert (link.credential, load_credential(storage)) == (before, before)
        link.close()
    assert len(hub.enrolled) == 1, "the device is not new"
