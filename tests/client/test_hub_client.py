"""The client follows the table of endpoints, and decodes answers to their types."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from edgefleet.base.errors import (
    InternalError,
    NetworkError,
    OperatorError,
    PublisherError,
    error_from_code,
)
from edgefleet.base.network import Answer, Download
from edgefleet.client.hub import HubClient, Refusal
from edgefleet.client.limits import UPLOAD_CHUNK_BYTES
from edgefleet.protocol import operator
from edgefleet.protocol.api import BY_NAME, ENDPOINTS
from edgefleet.protocol.collection import Collect, Collected
from edgefleet.protocol.device_commands import (
    ClearCopy,
    DeviceFilter,
    LabelDevice,
    RemovedDevice,
    RemoveDevice,
    RenameDevice,
)
from edgefleet.protocol.field_figures import ModelField
from edgefleet.protocol.hooks import (
    AddHook,
    ChangeHook,
    CreatedHook,
    DeadLetters,
    Hooks,
    HookView,
    RemovedHook,
    RemoveHook,
    Replayed,
    ReplayLetters,
)
from edgefleet.protocol.labels import Label
from edgefleet.protocol.operator import PlanFleet
from edgefleet.protocol.people import (
    AddUser,
    ChangePassword,
    ChangeUser,
    CreatedToken,
    CreateToken,
    LoginLink,
    RevokeToken,
    Role,
    Tokens,
    TokenView,
    Users,
    UserView,
)
from edgefleet.protocol.release import Envelope, Signature
from edgefleet.protocol.restored import AcceptedRestored, AcceptRestored
from edgefleet.protocol.rollout import ApproveRequest, Command, Freeze, RolloutSpec, Status, Verb
from edgefleet.protocol.wire import Wire, decode, encode
from support.canned_hub import TOKEN, CannedHub, canned_hub
from support.fake_reads import FakeReads, release_view, rollout_in

READS = FakeReads()
VIEW = rollout_in(Status.RUNNING)
RELEASE = release_view("2", READS.now)
HEALTH = operator.Health(status="ok", version="0.1.0", devices=3, uptime_s=9.0)
CLAIMS = operator.Claims(claims=("efc_1",), expires_at=5.0)
TRUTH = operator.TruthRequest(device="cam-1", model="digits", labels=(Label(id="a", truth=3),))
KEY = operator.TrustKey(name="team", public_key="AAAA")
KEYS = operator.TrustedKeys(keys=(KEY,))
ENVELOPE = Envelope(payloadType="t", payload="AA==", signatures=(Signature(keyid="k", sig="AA=="),))
SHA = "a" * 64
WHY = VIEW.why


@dataclass(frozen=True)
class Call:
    """A call of the client, the expected request, and the expected answer."""

    endpoint: str
    make: Callable[[HubClient], object]
    path: str
    answer: Wire | bytes
    query: str = ""
    body: Wire | None = None
    gives: object = None


USER = UserView(name="ada@example.org", role=Role.APPROVER, source="local", created_at=1.0)
HOOK = HookView(id="3f9a", url="http://ci/", kinds=(), created_at=1.0, position=0)
API_TOKEN = TokenView(id="3f9a0c11d2", user="ada", role=Role.VIEWER, created_at=1.0)

CALLS = (
    Call("health", lambda hub: hub.health(), "/health", HEALTH),
    Call("metrics", lambda hub: hub.metrics(), "/metrics", b"up 1\n", gives="up 1\n"),
    Call("hooks", lambda hub: hub.hooks.hooks(), "/api/v1/hooks", Hooks(hooks=(HOOK,))),
    Call(
        "hook_add",
        lambda hub: hub.hooks.add(AddHook(url="http://ci/")),
        "/api/v1/hooks",
        CreatedHook(secret="s", view=HOOK),
        body=AddHook(url="http://ci/"),
    ),
    Call(
        "hook_change",
        lambda hub: hub.hooks.change("3f9a", ChangeHook(enabled=False)),
        "/api/v1/hooks/3f9a",
        HOOK,
        body=ChangeHook(enabled=False),
    ),
    Call(
        "hook_remove",
        lambda hub: hub.hooks.remove("3f9a"),
        "/api/v1/hooks/3f9a/remove",
        RemovedHook(id="3f9a"),
        body=RemoveHook(),
    ),
    Call(
        "hook_letters",
        lambda hub: hub.hooks.letters("3f9a"),
        "/api/v1/hooks/3f9a/dead-letters",
        DeadLetters(letters=()),
    ),
    Call(
        "hook_replay",
        lambda hub: hub.hooks.replay("3f9a", ReplayLetters(numbers=(4,))),
        "/api/v1/hooks/3f9a/replay",
        Replayed(delivered=1, failed=0),
        body=ReplayLetters(numbers=(4,)),
    ),
    Call(
        "events",
        lambda hub: b"".join(hub.events(after=5, kinds=("rollout.*",), follow=False)),
        "/api/v1/events",
        b"id: 5\n\n",
        query="after=5&kind=rollout.%2A&follow=false",
        gives=b"id: 5\n\n",
    ),
    Call("openapi", lambda hub: hub.openapi(), "/api/v1/openapi.json", b"{}", gives=b"{}"),
    Call("fleet", lambda hub: hub.fleet(), "/api/v1/fleet", READS.fleet()),
    Call(
        "claim",
        lambda hub: hub.claim(operator.ClaimRequest(count=2, labels={"site": "lyon"})),
        "/api/v1/claims",
        CLAIMS,
        body=operator.ClaimRequest(count=2, labels={"site": "lyon"}),
    ),
    Call(
        "add_truth",
        lambda hub: hub.add_truth(TRUTH),
        "/api/v1/truth",
        operator.TruthAdded(added=1, waiting=1),
        body=TRUTH,
    ),
    Call("trust", lambda hub: hub.trust(KEY), "/api/v1/trust", KEYS, body=KEY),
    Call("trusted", lambda hub: hub.trusted(), "/api/v1/trust", KEYS),
    Call(
        "artifact_head",
        lambda hub: hub.has_artifact(SHA),
        f"/api/v1/artifacts/{SHA}",
        b"",
        gives=True,
    ),
    Call(
        "artifact_get",
        lambda hub: b"".join(hub.download(SHA)),
        f"/api/v1/artifacts/{SHA}",
        b"\0model",
        gives=b"\0model",
    ),
    Call(
        "publish",
        lambda hub: hub.publish(ENVELOPE),
        "/api/v1/releases",
        RELEASE,
        body=operator.PublishRequest(envelope=ENVELOPE),
    ),
    Call("models", lambda hub: hub.models(), "/api/v1/models", READS.models()),
    Call(
        "model",
        lambda hub: hub.model("a.b-c_d"),
        "/api/v1/models/a.b-c_d",
        READS.models().models[0],
    ),
    Call(
        "model_field",
        lambda hub: hub.model_field("digits"),
        "/api/v1/models/digits/field",
        ModelField(model="digits", since=5.0, profiles=()),
    ),
    Call(
        "release",
        lambda hub: hub.release("digits", "2.0"),
        "/api/v1/models/digits/releases/2.0",
        RELEASE,
    ),
    Call(
        "release_why",
        lambda hub: hub.why_release("digits", "2"),
        "/api/v1/models/digits/releases/2/why",
        WHY,
    ),
    Call(
        "devices",
        lambda hub: hub.devices(
            after="lyon 1",
            limit=5,
            only=DeviceFilter(selector="site in (lyon)", states=("online", "failed")),
        ),
        "/api/v1/devices",
        READS.devices(None, 5),
        query="after=lyon+1&limit=5&selector=site+in+%28lyon%29&state=online&state=failed",
    ),
    Call(
        "accept_restored",
        lambda hub: hub.accept_restored(AcceptRestored(note="backup")),
        "/api/v1/accept-restored",
        AcceptedRestored(devices=2, unknown=("cam-1",)),
        body=AcceptRestored(note="backup"),
    ),
    Call(
        "collect",
        lambda hub: hub.collect(Collect(dry_run=True)),
        "/api/v1/collect",
        Collected(dry_run=True, removed=1, removed_bytes=7, artifacts=("a" * 64,), kept=2),
        body=Collect(dry_run=True),
    ),
    Call(
        "label_device",
        lambda hub: hub.label_device("lyon-0001", LabelDevice(set={"a": "b"}, unset=("c",))),
        "/api/v1/devices/lyon-0001/labels",
        READS.device_views[0],
        body=LabelDevice(set={"a": "b"}, unset=("c",)),
    ),
    Call(
        "rename_device",
        lambda hub: hub.rename_device("lyon-0001", RenameDevice(name="door")),
        "/api/v1/devices/lyon-0001/rename",
        READS.device_views[0],
        body=RenameDevice(name="door"),
    ),
    Call(
        "remove_device",
        lambda hub: hub.remove_device("lyon-0001", RemoveDevice(note="stolen")),
        "/api/v1/devices/lyon-0001/remove",
        RemovedDevice(name="lyon-0001", reports={"ro-2": "trial"}),
        body=RemoveDevice(note="stolen"),
    ),
    Call(
        "device",
        lambda hub: hub.device("lyon-0001"),
        "/api/v1/devices/lyon-0001",
        READS.device_views[0],
    ),
    Call(
        "device_history",
        lambda hub: hub.device_history("x"),
        "/api/v1/devices/x/history",
        READS.device_history("lyon-0000"),
    ),
    Call(
        "device_figures",
        lambda hub: hub.device_figures("x"),
        "/api/v1/devices/x/figures",
        READS.device_figures("lyon-0000"),
    ),
    Call(
        "names",
        lambda hub: hub.names("releases", prefix="1", model="digits", limit=5),
        "/api/v1/names/releases",
        operator.Names(names=("1", "1.1")),
        query="prefix=1&model=digits&limit=5",
    ),
    Call("device_why", lambda hub: hub.why_device("x"), "/api/v1/devices/x/why", WHY),
    Call(
        "plan_fleet",
        lambda hub: hub.plan_fleet(RolloutSpec(model="digits", release="2")),
        "/api/v1/plans",
        PlanFleet(at=1.0, interval_s=60, groups=(), offline=0, ineligible={}),
        body=RolloutSpec(model="digits", release="2"),
    ),
    Call(
        "plan",
        lambda hub: hub.plan(RolloutSpec(model="digits", release="2")),
        "/api/v1/rollouts",
        VIEW,
        body=RolloutSpec(model="digits", release="2"),
    ),
    Call(
        "approve",
        lambda hub: hub.approve("ro-1", ApproveRequest(person="ada")),
        "/api/v1/rollouts/ro-1/approve",
        VIEW,
        body=ApproveRequest(person="ada"),
    ),
    Call(
        "freeze",
        lambda hub: hub.freeze(Freeze(frozen=True, person="ada")),
        "/api/v1/freeze",
        Freeze(frozen=True, person="ada", since=1.0),
        body=Freeze(frozen=True, person="ada"),
    ),
    Call("frozen", lambda hub: hub.frozen(), "/api/v1/freeze", Freeze(frozen=False)),
    Call(
        "quarantined",
        lambda hub: hub.quarantined(),
        "/api/v1/quarantined",
        operator.QuarantinedDevices(count=0, devices=()),
    ),
    Call(
        "unquarantine",
        lambda hub: hub.unquarantine("lyon-0001", operator.Unquarantine(person="ada")),
        "/api/v1/devices/lyon-0001/unquarantine",
        READS.device_views[0],
        body=operator.Unquarantine(person="ada"),
    ),
    Call(
        "clear_copy",
        lambda hub: hub.clear_copy("lyon-0001", ClearCopy(person="ada")),
        "/api/v1/devices/lyon-0001/clear-copy",
        READS.device_views[0],
        body=ClearCopy(person="ada"),
    ),
    Call("rollouts", lambda hub: hub.rollouts(), "/api/v1/rollouts", READS.rollouts()),
    Call("rollout", lambda hub: hub.rollout("ro-1"), "/api/v1/rollouts/ro-1", VIEW),
    Call("rollout_why", lambda hub: hub.why_rollout("ro-1"), "/api/v1/rollouts/ro-1/why", WHY),
    Call(
        "rollout_history",
        lambda hub: hub.history("ro-1"),
        "/api/v1/rollouts/ro-1/history",
        READS.history("ro-reverted"),
    ),
    Call(
        "command",
        lambda hub: hub.command("ro-1", Verb.PAUSE, Command(generation=3, note="why")),
        "/api/v1/rollouts/ro-1/pause",
        VIEW,
        body=Command(generation=3, note="why"),
    ),
    Call("users", lambda hub: hub.people.users(), "/api/v1/users", Users(users=(USER,))),
    Call(
        "user_add",
        lambda hub: hub.people.add_user(AddUser(name="ada", role=Role.ADMIN, password="p")),
        "/api/v1/users",
        USER,
        body=AddUser(name="ada", role=Role.ADMIN, password="p"),
    ),
    Call(
        "user_change",
        lambda hub: hub.people.change_user("ada@example.org", ChangeUser(disabled=True)),
        "/api/v1/users/ada%40example.org",
        USER,
        body=ChangeUser(disabled=True),
    ),
    Call(
        "user_password",
        lambda hub: hub.people.set_password("ada", ChangePassword(password="p", current="q")),
        "/api/v1/users/ada/password",
        USER,
        body=ChangePassword(password="p", current="q"),
    ),
    Call("tokens", lambda hub: hub.people.tokens(), "/api/v1/tokens", Tokens(tokens=(API_TOKEN,))),
    Call(
        "token_create",
        lambda hub: hub.people.create_token(CreateToken(user="ada", valid_s=60.0)),
        "/api/v1/tokens",
        CreatedToken(token="ef_1_2", view=API_TOKEN),
        body=CreateToken(user="ada", valid_s=60.0),
    ),
    Call(
        "token_revoke",
        lambda hub: hub.people.revoke_token("3f9a0c11d2", RevokeToken(note="lost")),
        "/api/v1/tokens/3f9a0c11d2/revoke",
        API_TOKEN,
        body=RevokeToken(note="lost"),
    ),
    Call(
        "login_link",
        lambda hub: hub.people.login_link(),
        "/api/v1/login-links",
        LoginLink(path="/login?code=x", expires_at=1.0),
    ),
    Call(
        "audit", lambda hub: hub.audit(before=9), "/api/v1/audit", READS.audit(None, 3), "before=9"
    ),
)


@pytest.fixture
def canned() -> Iterator[CannedHub]:
    with canned_hub() as hub:
        yield hub


@pytest.fixture
def client(canned: CannedHub) -> Iterator[HubClient]:
    made = HubClient(canned.url, TOKEN)
    yield made
    made.close()


@pytest.mark.parametrize("call", CALLS, ids=[call.endpoint for call in CALLS])
def test_each_call_makes_the_request_of_its_row(
    call: Call, canned: CannedHub, client: HubClient
) -> None:
    endpoint = BY_NAME[call.endpoint]
    canned.put(endpoint.method, call.path, call.answer)
    given = call.make(client)
    asked = canned.asked[-1]
    assert (asked.method, asked.path, asked.query) == (endpoint.method, call.path, call.query)
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert given == (call.answer if call.gives is None else call.gives)
    if call.body is None:
        assert asked.body == b""
    else:
        assert asked.headers["content-type"] == "application/json"
        assert decode(asked.body, type(call.body)) == call.body
        assert endpoint.request is type(call.body)


def test_every_operator_endpoint_of_the_table_has_a_call() -> None:
    called = {call.endpoint for call in CALLS} | {"artifact_put"}  # tested below, as a stream
    assert {row.name for row in ENDPOINTS if row.role in ("operator", "anyone")} == called


ODD = ["..", "../health", "a/b", "a?b=c", "a%2Fb", "é", "a b", ".", "", "a\nb", "x" * 64]


@pytest.mark.parametrize("odd", ODD)
def test_a_name_is_never_read_as_a_path(odd: str, canned: CannedHub, client: HubClient) -> None:
    halt = partial(client.command, verb=Verb.HALT)
    for call in (client.device, client.model, client.rollout, client.why_device, halt):
        with pytest.raises(OperatorError) as caught:
            call(odd)
        assert caught.value.code == "name_invalid"
    assert canned.asked == []


def test_a_row_whose_type_the_client_does_not_know_is_noticed(
    client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**BY_NAME, "fleet": BY_NAME["health"]}
    monkeypatch.setattr("edgefleet.client.hub.BY_NAME", changed)
    with pytest.raises(AssertionError, match="for fleet"):
        client.fleet()


def test_an_upload_is_a_stream_with_its_length_and_its_progress(
    canned: CannedHub, client: HubClient, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 9000  # more than two pieces
    file = tmp_path / "model.onnx"
    file.write_bytes(data)
    name = hashlib.sha256(data).hexdigest()
    path = f"/api/v1/artifacts/{name}"
    canned.put("PUT", path, operator.ArtifactView(sha256=name, size_bytes=len(data)))
    pieces: list[int] = []
    assert client.upload(name, file, pieces.append)
    assert [asked.method for asked in canned.asked] == ["HEAD", "PUT"]
    assert canned.asked[-1].body == data
    assert canned.asked[-1].headers["content-length"] == str(len(data))
    assert "transfer-encoding" not in canned.asked[-1].headers
    assert pieces == [UPLOAD_CHUNK_BYTES, UPLOAD_CHUNK_BYTES, len(data) - 2 * UPLOAD_CHUNK_BYTES]


def test_an_artifact_that_the_hub_has_is_not_sent_again(
    canned: CannedHub, client: HubClient, tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"12345")
    canned.put("HEAD", f"/api/v1/artifacts/{SHA}", b"")
    counted: list[int] = []
    assert not client.upload(SHA, file, counted.append)
    assert [asked.method for asked in canned.asked] == ["HEAD"]
    assert counted == [5]


def test_a_file_that_shrinks_while_it_is_sent_is_no_whole_upload(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"x" * (UPLOAD_CHUNK_BYTES + 10))

    class Eager:
        """A link that reads the whole body, as a server does."""

        def request(
            self,
            method: str,
            path: str,
            *,
            headers: object = None,
            body: object = None,
            timeout_s: float = 0,
        ) -> Answer:
            if method == "HEAD":
                return Answer(404, {}, b"")
            assert isinstance(body, Iterator)
            next(body)
            file.write_bytes(b"")
            list(body)
            raise AssertionError("the body ended as if it were whole")

        def download(self, path: str, *, headers: object = None, timeout_s: float = 0) -> Download:
            raise AssertionError(path)

        def close(self) -> None:
            """No connection is open."""

    with pytest.raises(PublisherError) as caught:
        HubClient("http://hub", TOKEN, link=Eager()).upload(SHA, file)
    assert caught.value.code == "digest_mismatch"


def test_a_refusal_is_the_hubs_own_typed_error(canned: CannedHub, client: HubClient) -> None:
    said = OperatorError("percent_not_rising", "5 % after 10 %.", field="waves[1].percent")
    canned.put("POST", "/api/v1/rollouts", said)
    with pytest.raises(OperatorError) as caught:
        client.plan(RolloutSpec(model="digits", release="2"))
    assert (caught.value.code, caught.value.field) == ("percent_not_rising", "waves[1].percent")
    assert caught.value.hint == said.hint
    assert isinstance(caught.value.__cause__, Refusal)
    assert caught.value.__cause__.status == 422


def test_a_code_of_a_newer_hub_becomes_an_error_that_names_it(
    canned: CannedHub, client: HubClient
) -> None:
    body = encode({"code": "moon_phase", "message": "Full.", "party": "us", "retry": "never"})
    canned.answer = lambda _asked: (418, body)  # type: ignore[method-assign]
    with pytest.raises(InternalError, match="moon_phase"):
        client.fleet()


def test_a_token_that_is_not_accepted_is_told_even_where_an_answer_has_no_body(
    canned: CannedHub, client: HubClient
) -> None:
    canned.put("HEAD", f"/api/v1/artifacts/{SHA}", 401)
    with pytest.raises(OperatorError) as caught:
        client.has_artifact(SHA)
    assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b'{"status": 3}', b""])
def test_what_is_no_answer_of_a_hub_is_a_network_error(
    answer: bytes, canned: CannedHub, client: HubClient
) -> None:
    canned.put("GET", "/health", answer)
    with pytest.raises(NetworkError) as caught:
        client.health()
    assert caught.value.code == "answer_malformed"


@pytest.mark.parametrize("status", [302, 404, 500, 502])
def test_an_answer_without_a_problem_is_a_network_error(
    status: int, canned: CannedHub, client: HubClient
) -> None:
    canned.put("GET", "/health", status)
    with pytest.raises(NetworkError) as caught:
        client.health()
    assert caught.value.code == "answer_malformed"


def test_a_download_that_is_refused_raises_before_the_first_byte(
    canned: CannedHub, client: HubClient
) -> None:
    canned.put("GET", f"/api/v1/artifacts/{SHA}", error_from_code("not_found", "No such artifact."))
    with pytest.raises(OperatorError) as caught:
        client.download(SHA)
    assert caught.value.code == "not_found"


def test_a_path_in_the_address_goes_before_every_endpoint(canned: CannedHub) -> None:
    canned.put("GET", "/fleet/health", HEALTH)
    assert HubClient(f"{canned.url}/fleet/", TOKEN).health() == HEALTH


def test_nobody_there_is_a_network_error(canned: CannedHub) -> None:
    with canned_hub() as other:
        url = other.url
    with pytest.raises(NetworkError) as caught:
        HubClient(url, TOKEN).health()
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hub:8400",
        "ftp://hub",
        "http://",
        "http://hub:99999",
        "http://h\n",
        "unix:",
        "http://a b",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(OperatorError) as caught:
        HubClient(url, TOKEN)
    assert (caught.value.code, caught.value.field) == ("setting_invalid", "hub")


@pytest.mark.parametrize("token", ["a b", "a\nb", "é", "x" * 500])
def test_a_token_that_cannot_stand_in_a_header_is_refused(token: str) -> None:
    with pytest.raises(OperatorError) as caught:
        HubClient("http://hub", token)
    assert (caught.value.code, caught.value.field) == ("setting_invalid", "token")
    assert token not in str(caught.value)
