"""The client against a real hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.client.discover import discover
from edgefleet.client.hub import HubClient, Refusal
from edgefleet.protocol.operator import ClaimRequest, TrustKey
from edgefleet.protocol.rollout import RolloutSpec
from edgefleet.security.signing import PublisherKey
from support.hub_process import HubProcess, running_hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(tmp_path_factory.mktemp("hub") / "data") as process:
        yield process


@pytest.fixture
def client(hub: HubProcess) -> Iterator[HubClient]:
    made = discover(data_dir=hub.data_dir, environ={}).client()
    yield made
    made.close()


def test_what_goes_up_comes_down(client: HubClient, tmp_path: Path) -> None:
    data = bytes(range(256)) * 16_384  # 4 MiB
    name = sha256_hex(data)
    file = tmp_path / "artifact"
    file.write_bytes(data)
    assert not client.has_artifact(name)
    assert client.upload(name, file)
    assert client.has_artifact(name)
    assert not client.upload(name, file)
    assert b"".join(client.download(name)) == data
    assert client.health().status == "ok"  # the connection stays open


def test_bytes_that_are_not_those_announced_are_refused(client: HubClient, tmp_path: Path) -> None:
    file = tmp_path / "artifact"
    file.write_bytes(b"something else")
    name = sha256_hex(b"what was announced")
    with pytest.raises(PublisherError) as caught:
        client.upload(name, file)
    assert caught.value.code == "digest_mismatch"
    assert isinstance(caught.value.__cause__, Refusal)
    assert not client.has_artifact(name)


def test_every_view_of_an_empty_hub_has_its_type(client: HubClient) -> None:
    assert client.fleet().total == 0
    assert client.models().models == ()
    assert client.devices().devices == ()
    assert client.rollouts().rollouts == ()
    assert "edgefleet" in client.metrics()
    assert client.hub_time() is not None
    key = TrustKey(name="team", public_key=PublisherKey.generate().public.text)
    assert key in client.trust(key).keys
    assert key in client.trusted().keys
    assert len(client.claim(ClaimRequest(count=3)).claims) == 3
    assert [entry.action for entry in client.audit(limit=2).entries] == ["claim", "trust"]


def test_refusals_are_typed(client: HubClient, hub: HubProcess) -> None:
    with pytest.raises(OperatorError) as caught:
        client.plan(RolloutSpec(model="none", release="1"))
    assert caught.value.code == "not_found"
    stranger = HubClient(hub.url, "efo_wrong")
    for call in (stranger.fleet, stranger.models, stranger.rollouts, stranger.metrics):
        with pytest.raises(OperatorError) as caught:
            call()
        assert caught.value.code == "unauthenticated"
    with pytest.raises(OperatorError) as caught:
        stranger.has_artifact("a" * 64)
    assert caught.value.code == "unauthenticated"
    stranger.close()
