"""The operator plane's API: typed answers, typed errors, and no partial changes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgefleet.base.errors import CATALOG, EdgefleetError
from edgefleet.base.network import HttpLink
from edgefleet.client.hub import HubClient
from edgefleet.protocol.device_commands import DeviceFilter
from edgefleet.protocol.operator import ClaimRequest, TrustKey
from edgefleet.protocol.rollout import Command, RolloutSpec, Status, Verb, WaveSpec
from edgefleet.protocol.why import WaitCode
from edgefleet.protocol.wire import Problem, decode, encode
from edgefleet.security.signing import PublisherKey
from support.hub_process import HubProcess, running_hub
from support.raw_device import RawDevice, enrol, enrolled, facts
from support.tiny_releases import publish, tiny_release


@dataclass
class Site:
    """A hub with 20 devices on two sites, and two releases."""

    hub: HubProcess
    client: HubClient
    devices: list[RawDevice]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("api")
    with running_hub(folder / "data") as hub:
        client = hub.client()
        devices = enrolled(client, hub.url, 15, labels={"site": "lyon"})
        claims = client.claim(ClaimRequest(count=5, labels={"site": "oslo"})).claims
        for number, claim in enumerate(claims):
            answer = enrol(hub.url, claim, f"o{number}", facts=facts("coral_tpu"))
            devices.append(RawDevice(answer.device, answer.token, answer.checkin_url))
        key = PublisherKey.generate()
        publish(client, key, tiny_release(folder, "1", profiles=("generic_x86", "coral_tpu")))
        publish(client, key, tiny_release(folder, "2", profiles=("generic_x86",)))
        for device in devices:
            device.check_in()
            device.close()
        yield Site(hub, client, devices)


def raw(site: Site, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    link = HttpLink(site.hub.url)
    headers = {"Authorization": f"Bearer {site.hub.token}"}
    answer = link.request(method, path, headers=headers, body=body)
    link.close()
    return answer.status, answer.body


# Planning.


def waves(*percents: float) -> tuple[WaveSpec, ...]:
    return tuple(WaveSpec(percent=percent) for percent in percents)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"waves": waves(0)}, "percent_out_of_range", "waves[0].percent"),
        ({"waves": waves(1, 101)}, "percent_out_of_range", "waves[1].percent"),
        ({"waves": waves(10, 5)}, "percent_not_rising", "waves[1].percent"),
        ({"waves": waves(10, 10)}, "percent_not_rising", "waves[1].percent"),
        ({"waves": ()}, "waves_invalid", "waves"),
        ({"selector": "colour=red"}, "selector_key_unknown", "selector"),
        ({"selector": "site in (lyon"}, "selector_invalid", "selector"),
        ({"selector": "site=paris"}, "fleet_empty", "selector"),
        ({"release": "2"}, "variant_missing", None),
        ({"release": "9"}, "not_found", "release"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_and_changes_nothing(
    site: Site, changes: dict[str, Any], code: str, field: str | None
) -> None:
    spec = msgspec.structs.replace(RolloutSpec(model="digits", release="1"), **changes)
    before = site.client.rollouts(), site.client.audit()
    with pytest.raises(EdgefleetError) as refused:
        site.client.plan(spec)
    assert refused.value.code == code
    assert field is None or refused.value.field == field
    assert refused.value.hint
    assert (site.client.rollouts(), site.client.audit()) == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"nonsense", None),
        (b"{}", None),
        (b'{"model": 7, "release": "1"}', "model"),
        (b'{"model": "digits", "release": "1", "waves": [{"percent": "all"}]}', "waves[0].percent"),
        (b'{"model": "digits", "release": "1", "gate": {"soak_s": null}}', "gate.soak_s"),
    ],
)
def test_a_plan_that_cannot_be_read_names_the_field(
    site: Site, body: bytes, field: str | None
) -> None:
    status, answer = raw(site, "POST", "/api/v1/rollouts", body)
    problem = decode(answer, Problem)
    assert (status, problem.code, problem.field) == (400, "bad_request", field)


def test_a_body_above_the_limit_is_refused(site: Site) -> None:
    status, answer = raw(site, "POST", "/api/v1/rollouts", b" " * (5 << 20))
    assert (status, decode(answer, Problem).code) == (413, "body_too_large")


def test_a_rollout_is_steered_by_verbs_and_every_step_is_written_down(site: Site) -> None:
    client = site.client
    spec = RolloutSpec(model="digits", release="1", selector="site=lyon", waves=waves(10, 100))
    planned = client.plan(spec)
    assert (planned.status, planned.why.waits[0].code) == (Status.PLANNED, WaitCode.START)
    started = client.command(planned.id, Verb.START, Command(note="after the meeting"))
    assert (started.status, started.waves[0].cut, started.waves[0].population) == (
        Status.RUNNING, 2, 15,
    )  # fmt: skip
    with pytest.raises(EdgefleetError, match="rollout_overlap"):
        client.plan(msgspec.structs.replace(spec, selector="site in (lyon,oslo)"))
    with pytest.raises(EdgefleetError, match="verb_not_now"):
        client.command(planned.id, Verb.RESUME)
    with pytest.raises(EdgefleetError, match="verb_not_now"):
        client.command(planned.id, Verb.PAUSE, Command(generation=started.generation + 5))
    paused = client.command(planned.id, Verb.PAUSE, Command(generation=started.generation))
    assert paused.status is Status.PAUSED
    halted = client.command(planned.id, Verb.HALT)
    assert halted.status is Status.HALTED
    assert [view.id for view in client.rollouts().rollouts] == [planned.id]
    about = f"rollout/{planned.id}"
    lines = [entry for entry in client.audit().entries if entry.about == about]
    assert [line.action for line in reversed(lines)] == ["plan", "start", "note", "pause", "halt"]
    assert {line.actor for line in lines} == {"operator"}
    assert client.why_rollout(planned.id).waits[0].code is WaitCode.HALTED


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/rollouts/none", "not_found"),
        ("GET", "/api/v1/rollouts/none/why", "not_found"),
        ("GET", "/api/v1/rollouts/none/history", "not_found"),
        ("POST", "/api/v1/rollouts/none/start", "not_found"),
        ("POST", "/api/v1/rollouts/none/explode", "bad_request"),
        ("GET", "/api/v1/models/none", "not_found"),
        ("GET", "/api/v1/models/digits/releases/none", "not_found"),
        ("GET", "/api/v1/models/digits/releases/none/why", "not_found"),
        ("GET", "/api/v1/devices/none", "not_found"),
        ("GET", "/api/v1/devices/none/why", "not_found"),
        ("GET", "/api/v1/devices?after=none", "cursor_invalid"),
        ("GET", "/api/v1/devices?after=cm9sbG91dHM6cm8tMQ", "cursor_invalid"),  # of rollouts
        ("GET", "/api/v1/devices?after=%2B%2F", "cursor_invalid"),
        ("GET", "/api/v1/rollouts?after=none", "cursor_invalid"),
        ("GET", "/api/v1/rollouts?status=none", "bad_request"),
        ("GET", "/api/v1/devices?standing=failed", "bad_request"),
        ("GET", "/api/v1/devices?rollout=none", "not_found"),
        ("GET", "/api/v1/devices?limit=0", "bad_request"),
        ("GET", "/api/v1/devices?limit=9999999", "bad_request"),
        ("GET", "/api/v1/devices?limit=many", "bad_request"),
        ("GET", "/api/v1/devices?selector=((", "selector_invalid"),
        ("GET", "/api/v1/devices?runs=none", "not_found"),
        ("GET", "/api/v1/devices?runs=digits:", "name_invalid"),
        ("GET", "/api/v1/rollouts?model=none", "not_found"),
        ("GET", "/api/v1/audit?before=-1", "bad_request"),
        ("GET", f"/api/v1/artifacts/{'0' * 64}", "not_found"),
    ],
)
def test_what_is_not_there_is_said_so(site: Site, method: str, path: str, code: str) -> None:
    status, answer = raw(site, method, path)
    problem = decode(answer, Problem)
    assert (problem.code, status) == (code, CATALOG[code].status)


# Lists.


def test_devices_come_in_pages(site: Site) -> None:
    names: list[str] = []
    after = None
    for _ in range(1 + len(site.devices) // 7):
        page = site.client.devices(after=after, limit=7)
        names += [device.name for device in page.devices]
        assert len(page.devices) <= 7
        if page.next is None:
            break
        after = page.next
    else:
        pytest.fail("The list of devices has more pages than devices fill.")
    assert names == [device.name for device in site.devices]


@pytest.mark.parametrize(
    ("selector", "count"),
    [("", 20), ("site=oslo", 5), ("site!=oslo", 15), ("site in (oslo,lyon)", 20), ("!site", 0)],
)
def test_devices_are_selected_by_label(site: Site, selector: str, count: int) -> None:
    assert (
        len(site.client.devices(only=DeviceFilter(selector=selector), limit=100).devices) == count
    )


def test_a_device_is_shown_with_its_facts_and_why(site: Site) -> None:
    view = site.client.device("o0")
    assert (view.profile, view.labels, view.online) == ("coral_tpu", {"site": "oslo"}, True)
    assert view.line == site.client.why_device("o0").line
    fleet = site.client.fleet()
    assert (fleet.total, fleet.online) == (20, 20)
    assert fleet.by_profile == {"generic_x86": 15, "coral_tpu": 5}


def test_the_audit_log_comes_in_pages(site: Site) -> None:
    every = site.client.audit(limit=1000).entries
    found: list[Any] = []
    before = None
    for _ in range(1 + len(every) // 6):
        page = site.client.audit(before=before, limit=6)
        found += page.entries
        if page.next is None:
            break
        before = page.next
    else:
        pytest.fail("The audit log has more pages than its entries fill.")
    assert tuple(found) == every
    assert [entry.id for entry in every] == list(range(len(every), 0, -1))


# Claims and keys.


def test_a_claim_enrols_one_device(site: Site) -> None:
    claim = site.client.claim(ClaimRequest()).claims[0]
    before = site.client.fleet().total
    with pytest.raises(EdgefleetError, match="device_name_taken"):
        enrol(site.hub.url, claim, "d000")
    answer = enrol(site.hub.url, claim, "first")
    assert answer.interval_s == 60.0
    for name in ("first", "second"):
        with pytest.raises(EdgefleetError, match="claim_used"):
            enrol(site.hub.url, claim, name)
    with pytest.raises(EdgefleetError, match="claim_unknown"):
        enrol(site.hub.url, claim + "0", "third")
    assert site.client.fleet().total == before + 1


@pytest.mark.parametrize(
    ("name", "labels", "field"),
    [
        ("../etc", {}, "name"),
        ("a b", {}, "name"),
        ("ok", {"bad key": "x"}, "labels"),
        ("ok", {"site": "a b"}, "labels.site"),
        ("ok", {f"k{number}": "x" for number in range(33)}, "labels"),
    ],
)
def test_an_enrolment_with_a_bad_name_uses_up_no_claim(
    site: Site, name: str, labels: dict[str, str], field: str
) -> None:
    claim = site.client.claim(ClaimRequest()).claims[0]
    with pytest.raises(EdgefleetError) as refused:
        enrol(site.hub.url, claim, name, labels=labels)
    assert refused.value.code in {"name_invalid", "bad_request"}
    assert refused.value.field == field
    enrol(site.hub.url, claim, f"after-{abs(hash((name, *labels)))}")


def test_strangers_cannot_fill_the_writers_queue(site: Site) -> None:
    def writes() -> list[str]:
        lines = site.client.metrics().splitlines()
        return [line for line in lines if line.startswith("edgefleet_writes_total")]

    before = writes()
    for number in range(20):
        with pytest.raises(EdgefleetError, match="claim_unknown"):
            enrol(site.hub.url, f"efc_{number:040x}", "stranger")
    assert writes() == before
    status, answer = raw(site, "POST", "/device/v1/enrol", b"{" + b" " * (1 << 20))
    assert (status, decode(answer, Problem).code) == (413, "body_too_large")


def test_claims_and_keys_are_checked(site: Site) -> None:
    for body, field in ((b'{"count": 0}', "count"), (b'{"valid_s": -1}', "valid_s")):
        status, answer = raw(site, "POST", "/api/v1/claims", body)
        assert (status, decode(answer, Problem).field) == (400, field)
    before = site.client.trusted()
    with pytest.raises(EdgefleetError, match="setting_invalid"):
        site.client.trust(TrustKey(name="x", public_key="short"))
    key = PublisherKey.generate().public.text
    with pytest.raises(EdgefleetError, match="name_invalid"):
        site.client.trust(TrustKey(name="bad name", public_key=key))
    assert site.client.trusted() == before


# Figures.


def test_metrics_are_read_by_prometheus_own_parser(site: Site) -> None:
    found = {
        family.name: family for family in text_string_to_metric_families(site.client.metrics())
    }
    assert {
        "edgefleet_devices", "edgefleet_profile_devices", "edgefleet_phase_devices",
        "edgefleet_release_devices", "edgefleet_rollouts", "edgefleet_releases",
        "edgefleet_checkins", "edgefleet_checkin_seconds", "edgefleet_outcomes",
        "edgefleet_commit_seconds", "edgefleet_write_queue_depth", "edgefleet_uptime_seconds",
    } <= set(found)  # fmt: skip
    profiles = {
        sample.labels["profile"]: sample.value
        for sample in found["edgefleet_profile_devices"].samples
    }
    assert profiles["coral_tpu"] == 5
    counts = {sample.name: sample.value for sample in found["edgefleet_checkin_seconds"].samples}
    checkins = sum(
        sample.value
        for sample in found["edgefleet_checkins"].samples
        if sample.name == "edgefleet_checkins_total"
    )
    assert counts["edgefleet_checkin_seconds_count"] == checkins >= 20


def test_a_model_that_nobody_published_yet_is_an_empty_list(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data") as hub:
        assert hub.client().models().models == ()
        assert hub.client().fleet().total == 0
        with pytest.raises(EdgefleetError, match="not_found"):
            hub.client().plan(RolloutSpec(model="digits", release="1"))


def test_answers_are_json_that_anybody_can_read(site: Site) -> None:
    status, answer = raw(site, "GET", "/api/v1/fleet")
    assert status == 200
    assert json.loads(answer)["total"] >= 20
    assert raw(site, "PUT", "/api/v1/trust", encode({"name": "x"}))[0] == 400
