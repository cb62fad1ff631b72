"""An enrolment whose answer is lost: a real hub enrolled the device, and the device asks again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.agent.device_key import KEY, device_key
from edgefleet.agent.event import CheckInAnswered, CheckInFailed
from edgefleet.agent.link import CREDENTIAL, Enrolment, HubLink, load_credential
from edgefleet.agent.own_files import OwnFile
from edgefleet.base.entropy import SystemEntropy
from edgefleet.base.errors import DeviceError, EdgefleetError
from edgefleet.base.network import HttpLink
from edgefleet.base.storage import FolderStorage
from edgefleet.client.hub import HubClient
from edgefleet.protocol.device import CheckIn
from edgefleet.protocol.device_commands import RemoveDevice, RenameDevice
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.version import PROTOCOL
from support.harming_proxy import HarmingProxy, harming_proxy
from support.hub_process import HubProcess, running_hub
from support.own_files import copies
from support.raw_device import enrol, facts

SAID = CheckIn(protocol=PROTOCOL, seq=1)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(tmp_path_factory.mktemp("hub") / "data") as running:
        yield running


@pytest.fixture
def client(hub: HubProcess) -> Iterator[HubClient]:
    client = hub.client()
    yield client
    client.close()


def link_to(url: str, folder: Path, claim: str, name: str) -> HubLink:
    """The link of an agent that starts with what its folder has."""
    storage = FolderStorage(folder)
    enrolment = Enrolment(claim=claim, name=name, facts=facts(), labels={})
    return HubLink(
        url, load_credential(storage), enrolment, storage, HttpLink, entropy=SystemEntropy()
    )


def cut_answers(proxy: HarmingProxy) -> None:
    """From now on each answer is lost, after the hub has done what was asked."""
    proxy.harm = lambda: "cut"  # type: ignore[method-assign]
    proxy.place = lambda size: 0  # type: ignore[method-assign]


def lose_the_answer(hub: HubProcess, folder: Path, claim: str, name: str) -> None:
    """The hub enrols the device, which does not hear of it."""
    with harming_proxy(hub.url, seed=1, share=0.0) as proxy:
        cut_answers(proxy)
        link = link_to(proxy.url, folder, claim, name)
        failed = link.check_in(SAID)
        link.close()
    assert isinstance(failed, CheckInFailed)
    assert failed.code != "claim_used"
    assert load_credential(FolderStorage(folder)) is None


def one_claim(client: HubClient) -> str:
    return client.claim(ClaimRequest()).claims[0]


def test_the_same_device_gets_its_credential_again(
    hub: HubProcess, client: HubClient, tmp_path: Path
) -> None:
    claim, before = one_claim(client), client.fleet().total
    for _ in range(3):
        lose_the_answer(hub, tmp_path, claim, "lost-answer")
    assert client.fleet().total == before + 1, "the hub enrolled it at the first request"
    link = link_to(hub.url, tmp_path, claim, "lost-answer")  # after a power loss
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    link.close()
    assert client.fleet().total == before + 1
    assert client.device("lost-answer").online


def test_another_key_cannot_use_the_claim(
    hub: HubProcess, client: HubClient, tmp_path: Path
) -> None:
    claim = one_claim(client)
    lose_the_answer(hub, tmp_path / "device", claim, "victim")
    for name in ("victim", "thief"):
        link = link_to(hub.url, tmp_path / f"as-{name}", claim, name)
        refused = link.check_in(SAID)
        link.close()
        assert isinstance(refused, CheckInFailed)
        assert refused.code == "claim_used"
        with pytest.raises(EdgefleetError, match="claim_used"):
            enrol(hub.url, claim, name)  # an older agent, without a key
    other = one_claim(client)
    key_of_the_device = FolderStorage(tmp_path / "device").read(KEY)
    assert key_of_the_device is not None
    FolderStorage(tmp_path / "as-thief").write(KEY, key_of_the_device)
    link = link_to(hub.url, tmp_path / "as-thief", other, "second")  # with a claim of its own
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    link.close()
    assert load_credential(FolderStorage(tmp_path / "as-thief")).device == "second"  # type: ignore[union-attr]


def test_an_older_agent_needs_another_claim(hub: HubProcess, client: HubClient) -> None:
    claim = one_claim(client)
    enrol(hub.url, claim, "older")
    with pytest.raises(EdgefleetError, match="claim_used"):
        enrol(hub.url, claim, "older")


def test_a_renamed_device_is_still_the_same_one_and_a_removed_device_is_not(
    hub: HubProcess, client: HubClient, tmp_path: Path
) -> None:
    claim = one_claim(client)
    lose_the_answer(hub, tmp_path, claim, "first-name")
    client.rename_device("first-name", RenameDevice(name="second-name"))
    link = link_to(hub.url, tmp_path, claim, "first-name")
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    link.close()
    assert client.device("second-name").online

    client.remove_device("second-name", RemoveDevice())
    OwnFile(FolderStorage(tmp_path), CREDENTIAL).remove()
    link = link_to(hub.url, tmp_path, claim, "first-name")
    refused = link.check_in(SAID)
    link.close()
    assert isinstance(refused, CheckInFailed)
    assert refused.code == "claim_used"


def test_a_restart_of_the_hub_forgets_no_key(
    hub: HubProcess, client: HubClient, tmp_path: Path
) -> None:
    claim = one_claim(client)
    lose_the_answer(hub, tmp_path, claim, "over-a-restart")
    hub.kill()
    hub.start()
    link = link_to(hub.url, tmp_path, claim, "over-a-restart")
    assert isinstance(link.check_in(SAID), CheckInAnswered)
    link.close()


@pytest.mark.parametrize("place", copies(KEY))
def test_one_damaged_copy_of_the_key_is_no_loss(tmp_path: Path, place: str) -> None:
    storage = FolderStorage(tmp_path)
    key = device_key(storage, SystemEntropy())
    assert len(key) == 64
    storage.write(place, b"0" * 10)
    assert device_key(storage, SystemEntropy()) == key
    assert OwnFile(storage, KEY).is_intact(key.encode())


def test_a_key_that_cannot_be_stored_is_used(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)

    def full(path: str, data: bytes) -> None:
        raise DeviceError("disk_full", "No room.")

    storage.write = full  # type: ignore[method-assign]
    assert len(device_key(storage, SystemEntropy())) == 64
