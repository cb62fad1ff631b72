"""Every endpoint of the table is served and requires its credential."""

import http.client
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.base.errors import CATALOG
from edgefleet.base.network import HttpLink
from edgefleet.hub.settings import Address, HubSettings
from edgefleet.protocol.api import ENDPOINTS, Endpoint
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.wire import Problem, decode, encode
from support.hub_process import HubProcess, running_hub
from support.raw_device import RawDevice, enrolled, facts

PARAMETERS = {
    "{sha256}": "a" * 64, "{model}": "digits", "{release}": "1", "{device}": "d000",
    "{rollout}": "ro-1", "{verb}": "start", "{user}": "ada", "{token}": "3f9a0c11d2",
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with running_hub(tmp_path_factory.mktemp("hub") / "data") as hub:
        yield hub


@pytest.fixture(scope="module")
def device(hub: HubProcess) -> RawDevice:
    return enrolled(hub.client(), hub.url, 1)[0]


def ask(hub: HubProcess, endpoint: Endpoint, headers: dict[str, str]) -> tuple[int, bytes]:
    path = endpoint.path
    for name, value in PARAMETERS.items():
        path = path.replace(name, value)
    body = None
    if endpoint.name == "enrol":
        body = b'{"protocol":1,"claim":"none","name":"x","facts":' + encode(facts()) + b"}"
    elif endpoint.request is not None:
        body = b"{}"
    link = HttpLink(hub.checkin_url if endpoint.name == "checkin" else hub.url)
    answer = link.request(endpoint.method, path, headers=headers, body=body)
    while answer.status == 429:  # so many requests without a credential come from one address
        time.sleep(float(answer.headers["retry-after"]))
        answer = link.request(endpoint.method, path, headers=headers, body=body)
    link.close()
    return answer.status, answer.body


def begins_with(hub: HubProcess, path: str, headers: dict[str, str]) -> int:
    """The status of an answer whose body is not read."""
    address = Address.parse(hub.url.removeprefix("http://"), field="url")
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    connection.request("GET", path, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


GUARDED = [endpoint for endpoint in ENDPOINTS if endpoint.role != "anyone"]


@pytest.mark.parametrize("endpoint", GUARDED, ids=lambda endpoint: endpoint.name)
@pytest.mark.parametrize("shown", ["nothing", "nonsense", "other", "basic", "forged"])
def test_an_endpoint_answers_401_without_its_credential(
    hub: HubProcess, device: RawDevice, endpoint: Endpoint, shown: str
) -> None:
    others = {"operator": device.token, "device": hub.token, "claim": hub.token}
    said = {
        "nothing": {},
        "nonsense": {"Authorization": "Bearer caf\u00e9"},
        "other": {"Authorization": f"Bearer {others[endpoint.role]}"},
        "basic": {"Authorization": f"Basic {hub.token}"},
        "forged": {"Authorization": f"Bearer {device.token[:-1]}{'01'[device.token[-1] == '0']}"},
    }[shown]
    status, body = ask(hub, endpoint, said)
    assert status == 401, body
    if endpoint.method != "HEAD":
        problem = decode(body, Problem)
        assert CATALOG[problem.code].status == 401
        assert problem.hint


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_every_endpoint_of_the_table_is_served(
    hub: HubProcess, device: RawDevice, endpoint: Endpoint
) -> None:
    tokens = {"operator": hub.token, "device": device.token, "claim": "", "anyone": ""}
    token = tokens[endpoint.role]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if endpoint.name == "events":  # its answer does not end
        assert begins_with(hub, endpoint.path, headers) == 200
        return
    status, body = ask(hub, endpoint, headers)
    assert status in {200, 400, 401, 404, 409, 422}, body
    if status == 404 and endpoint.method != "HEAD":  # the object is missing, not the endpoint
        assert "There is no endpoint" not in decode(body, Problem).message


def test_health_says_nothing_secret(hub: HubProcess) -> None:
    link = HttpLink(hub.url)
    answer = link.request("GET", "/health")
    link.close()
    assert answer.status == 200
    assert hub.token.encode() not in answer.body
    assert str(hub.data_dir).encode() not in answer.body


def test_secrets_are_for_their_owner_alone(hub: HubProcess) -> None:
    for name in ("operator.token", "hub.secret", "hub.lock"):
        assert stat.S_IMODE((hub.data_dir / name).stat().st_mode) == 0o600, name
    assert hub.token not in hub.log.read_text()
    assert hub.token not in (hub.data_dir / "hub.json").read_text()


def test_the_database_holds_no_claim(hub: HubProcess) -> None:
    claim = hub.client().claim(ClaimRequest()).claims[0]
    stored = b"".join(path.read_bytes() for path in hub.data_dir.glob("hub.sqlite*"))
    assert claim.encode() not in stored
    assert claim.removeprefix("efc_").encode() not in stored


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing/here", "not_found"),
        ("PUT", "/api/v1/fleet", "method_not_allowed"),
        ("POST", "/health", "method_not_allowed"),
        ("GET", "/api/v1/artifacts/../../etc/passwd", "not_found"),
        ("GET", "/api/v1/artifacts/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "not_found"),
    ],
)
def test_what_the_router_refuses_is_a_problem_too(
    hub: HubProcess, method: str, path: str, code: str
) -> None:
    link = HttpLink(hub.url)
    answer = link.request(method, path, headers={"Authorization": f"Bearer {hub.token}"})
    link.close()
    problem = decode(answer.body, Problem)
    assert (problem.code, answer.status) == (code, CATALOG[code].status)
    assert answer.headers["content-type"] == "application/json"


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    settings = HubSettings(data_dir=Path(os.devnull))
    for text in (settings.listen, settings.checkin_listen):
        assert Address.parse(text, field="listen").host == "127.0.0.1"
