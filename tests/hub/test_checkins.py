"""Check-ins: an accepted one is durable and counted once, a rejected one changes nothing."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from edgefleet.base.entropy import SystemEntropy
from edgefleet.base.errors import CATALOG, OperatorError
from edgefleet.http1.limits import ConnectionLimits
from edgefleet.http1.server import listen
from edgefleet.hub import checkin_handler as device_plane_module
from edgefleet.hub.hub import Hub
from edgefleet.hub.store import writer as writer_module
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.device import CheckInAnswer, OutcomeKind, Phase
from edgefleet.protocol.rollout import (
    Command,
    RolloutSpec,
    Verb,
    WaveSpec,
)
from edgefleet.protocol.version import OLDEST_SERVED, ONE_MODEL, PROTOCOL
from edgefleet.protocol.wire import Problem, decode, encode
from edgefleet.rollout.limits import SEQ_MAX
from edgefleet.security.credentials import DeviceIdentity, issue_device_token
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.hub_inside import (
    InsideDevice,
    ManualClock,
    SlowDisk,
    check_in,
    enrol_inside,
    hub_inside,
    open_rollout,
    outcome,
    publish_inside,
    reply_of,
    report,
    request_of,
    settle,
    stored_outcomes,
)
from support.hub_process import running_hub
from support.raw_device import CHECKIN, RawDevice, enrolled, facts
from support.tiny_releases import tiny_release


def inside(
    tmp_path: Path,
    body: Callable[[Hub, list[InsideDevice]], Any],
    devices: int = 2,
    disk: SlowDisk | None = None,
) -> None:
    """Run ``body`` against a hub with some devices."""
    open_store = (disk or SlowDisk()).open_store

    async def main() -> None:
        async with hub_inside(tmp_path / "data", open_store=open_store) as hub:
            await body(hub, await enrol_inside(hub, devices))

    asyncio.run(main())


def everything(hub: Hub) -> tuple[Any, ...]:
    """All state that a check-in can change."""
    return hub.devices(None, 100), hub.fleet(), hub.rollouts(), hub.audit(None, 100)


GOOD = {"protocol": 1, "seq": 1}
OUTCOME = {"id": "o", "rollout": "r", "release": "2", "kind": "confirmed", "at": 1}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", "checkin_malformed", None),
        (b"not json", "checkin_malformed", None),
        (b"\xff\xfe", "checkin_malformed", None),
        (b"[]", "checkin_malformed", None),
        (b"{}", "checkin_malformed", None),
        (b'{"protocol": "1", "seq": 1}', "checkin_malformed", "protocol"),
        (b'{"protocol": 1, "seq": 0}', "checkin_malformed", "seq"),
        (b'{"protocol": 1, "seq": 1.5}', "checkin_malformed", "seq"),
        (b'{"protocol": 1, "seq": 1, "phase": "asleep"}', "checkin_malformed", "phase"),
        (b'{"protocol": 1, "seq": 1, "release": ""}', "checkin_malformed", "release"),
        (b'{"protocol": 1, "seq": 1, "outcomes": [{"id": "x"}]}', "checkin_malformed", "outcomes[0]"),
        (json.dumps(GOOD | {"outcomes": [OUTCOME] * 17}).encode(), "checkin_malformed", "outcomes"),
        (json.dumps(GOOD | {"telemetry": {"release": "1", "requests": -1}}).encode(), "checkin_malformed", "telemetry.requests"),
        (b'{"protocol": 4, "seq": 1}', "protocol_unsupported", "protocol"),
        (b'{"protocol": 7, "reports": {"new": "shape"}}', "protocol_unsupported", "protocol"),
    ],
)  # fmt: skip
def test_a_malformed_check_in_is_refused_and_changes_nothing(
    tmp_path: Path, body: bytes, code: str, field: str | None
) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        before = everything(hub)
        reply = await check_in(hub, devices[0], body)
        problem = decode(reply.body, Problem)
        assert (problem.code, problem.field) == (code, field)
        assert reply.status == CATALOG[code].status
        assert problem.hint
        assert everything(hub) == before
        await report(hub, devices[0], devices[0].said())  # sequence number 1 is still unused

    inside(tmp_path, run)


def test_a_replayed_check_in_is_refused_and_told_where_to_go_on(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        device.seq = 6
        rollout = await open_rollout(hub, tmp_path / "r")
        said = device.said(outcome("o1", OutcomeKind.CONFIRMED, rollout), running=None)
        await report(hub, device, said)
        before = everything(hub)
        for number in (7, 6, 1):
            device.seq = number - 1
            reply = await check_in(hub, device, device.said(phase=Phase.TRIAL))
            problem = decode(reply.body, Problem)
            assert (reply.status, problem.code, problem.next_seq) == (409, "checkin_replayed", 8)
        assert everything(hub) == before
        device.seq = 7
        await report(hub, device, device.said())

    inside(tmp_path, run)


def test_a_credential_of_another_hub_or_row_is_refused(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        secret = bytes.fromhex((tmp_path / "data" / "hub.secret").read_text())
        foreign = SystemEntropy().token(32)
        before = everything(hub)
        invalid, unknown = "credential_invalid", "device_unknown"  # which this hub issued
        for token, code in (
            ("", invalid),
            (devices[0].token[:-1], invalid),
            (devices[0].token + "0", invalid),
            (issue_device_token(foreign, DeviceIdentity(0, "d000")), invalid),
            (issue_device_token(secret, DeviceIdentity(0, "d001")), unknown),
            (issue_device_token(secret, DeviceIdentity(99, "nobody")), unknown),
        ):
            reply = await check_in(hub, InsideDevice("d000", token), devices[0].said())
            assert (reply.status, decode(reply.body, Problem).code) == (401, code)
        shown, fleet, *others = before
        fleet = msgspec.structs.replace(fleet, unknown_devices=("d001", "nobody"))
        assert everything(hub) == (shown, fleet, *others)

    inside(tmp_path, run)


def test_an_oversized_check_in_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data") as hub:
        device = enrolled(hub.client(), hub.url, 1)[0]
        before = hub.client().device(device.name)
        answer = device.post(b'{"protocol": 1, "seq": 1, "x": "' + b"y" * (1 << 20) + b'"}')
        assert (answer.status, decode(answer.body, Problem).code) == (413, "body_too_large")
        device.close()
        assert hub.client().device(device.name) == before
        assert device.check_in().acked == ()


def test_a_slow_check_in_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        before = everything(hub)
        listener = await listen(hub.device_plane, limits=ConnectionLimits(body_s=0.1))
        body = encode(devices[0].said())
        head = (
            f"POST {CHECKIN} HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {devices[0].token}\r\n"
        )
        slow = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:-1]

        def send() -> bytes:
            with socket.create_connection(("127.0.0.1", listener.port)) as link:
                link.sendall(slow)  # the last byte is never sent
                return b"".join(iter(lambda: link.recv(1 << 16), b""))

        answer = await asyncio.to_thread(send)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert decode(answer.partition(b"\r\n\r\n")[2], Problem).code == "request_too_slow"
        await listener.close()
        assert everything(hub) == before

    inside(tmp_path, run)


def test_an_outcome_sent_three_times_is_counted_once_and_acknowledged_thrice(
    tmp_path: Path,
) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        rollout = await open_rollout(hub, tmp_path / "r")
        said = outcome("o1", OutcomeKind.CONFIRMED, rollout)
        for _ in range(3):
            answer = await report(hub, devices[0], devices[0].said(said))
            assert answer.acked == ("o1",)
        assert stored_outcomes(tmp_path / "data") == [(0, "o1")]
        assert 'edgefleet_outcomes_total{kind="confirmed"} 1' in hub.metrics()
        assert "edgefleet_outcomes_repeated_total 2" in hub.metrics()

    inside(tmp_path, run)


def test_a_heartbeat_writes_nothing(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        await hub.loop.tick()
        before = [line for line in hub.metrics().splitlines() if "writes_total" in line]
        for _ in range(50):
            await report(hub, devices[0], devices[0].said())
        await hub.loop.tick()
        after = [line for line in hub.metrics().splitlines() if "writes_total" in line]
        assert after == before

    inside(tmp_path, run)


async def acknowledged_too_early(
    hub: Hub, device: InsideDevice, data_dir: Path, disk: SlowDisk
) -> bool:
    """Whether the hub acknowledges an outcome that a power cut could still lose."""
    rollout = await open_rollout(hub, data_dir.parent / "r")
    said = device.said(outcome("o1", OutcomeKind.CONFIRMED, rollout))
    async with disk.blocked():
        answered = asyncio.ensure_future(reply_of(hub.device_plane(request_of(device, said))))
        await settle()
        early = answered.done() and stored_outcomes(data_dir) == []
    reply = await answered
    assert decode(reply.body, CheckInAnswer).acked == ("o1",)
    return early


def test_nothing_is_acknowledged_before_the_commit(tmp_path: Path) -> None:
    disk = SlowDisk()

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        assert not await acknowledged_too_early(hub, devices[0], tmp_path / "data", disk)
        assert stored_outcomes(tmp_path / "data") == [(0, "o1")]

    inside(tmp_path, run, disk=disk)


def test_a_hub_that_acknowledges_before_the_commit_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()
    honest = SqliteStore.save_outcomes

    async def hasty(*args: Any) -> None:
        *rest, committed = args
        committed(tuple(rest[2]))
        honest(*rest, lambda _fresh: None)  # without awaiting the commit

    monkeypatch.setattr(SqliteStore, "save_outcomes", hasty)

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        assert await acknowledged_too_early(hub, devices[0], tmp_path / "data", disk)

    inside(tmp_path, run, disk=disk)


def commits(hub: Hub) -> int:
    """The number of commits since the hub started, from its metrics."""
    (text,) = (line for line in hub.metrics().splitlines() if "commit_seconds_count" in line)
    return int(text.split()[1])


def test_reports_of_many_devices_share_a_commit(tmp_path: Path) -> None:
    disk = SlowDisk()

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        rollout = await open_rollout(hub, tmp_path / "r")
        said = outcome("o1", OutcomeKind.CONFIRMED, rollout)
        async with disk.blocked():
            replies = [
                asyncio.ensure_future(check_in(hub, device, device.said(said)))
                for device in devices
            ]
            await settle()
            before = commits(hub)
        for reply in await asyncio.gather(*replies):
            assert reply.status == 200
        assert commits(hub) - before == 2  # the blocked commit, and one for all reports
        assert len(stored_outcomes(tmp_path / "data")) == len(devices)

    inside(tmp_path, run, devices=40, disk=disk)


def test_a_full_queue_answers_503_and_uses_up_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        rollout = await open_rollout(hub, tmp_path / "r")
        said = device.said(outcome("o1", OutcomeKind.CONFIRMED, rollout))
        async with disk.blocked():
            monkeypatch.setattr(writer_module, "WRITES_WAITING", 0)
            reply = await check_in(hub, device, said)
            assert (reply.status, decode(reply.body, Problem).code) == (503, "overloaded")
            assert "Retry-After" in dict(reply.headers)
            heartbeat = await check_in(hub, devices[1], devices[1].said())
            assert heartbeat.status == 200  # needs no place in the queue
        monkeypatch.setattr(writer_module, "WRITES_WAITING", 10)
        assert (await report(hub, device, said)).acked == ("o1",)

    inside(tmp_path, run, disk=disk)


def test_a_device_that_reports_without_end_is_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_plane_module, "OUTCOMES_PER_DEVICE_HOUR", 2)

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        mad, calm = devices
        rollout = await open_rollout(hub, tmp_path / "r")
        said = [outcome(f"o{number}", OutcomeKind.DEFERRED, rollout) for number in range(3)]
        for one in (said[0], said[0], said[1]):  # a repeated outcome does not count
            await report(hub, mad, mad.said(one))
        last = mad.said(said[2])
        reply = await check_in(hub, mad, last)
        assert (reply.status, decode(reply.body, Problem).code) == (503, "overloaded")
        await report(hub, calm, calm.said(said[2]))
        assert stored_outcomes(tmp_path / "data") == [(0, "o0"), (0, "o1"), (1, "o2")]
        assert isinstance(hub.clock, ManualClock)
        hub.clock.time += 3600
        assert (await report(hub, mad, last)).acked == ("o2",)

    inside(tmp_path, run)


def test_an_offer_is_made_only_once_the_start_is_durable(tmp_path: Path) -> None:
    disk = SlowDisk()

    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "2"))
        for device in devices:
            await report(hub, device, device.said())
        spec = RolloutSpec(model="digits", release="2", waves=(WaveSpec(percent=100),))
        view = await hub.plan(spec, OPERATOR_TOKEN)
        async with disk.blocked():
            start = asyncio.ensure_future(
                hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
            )
            await settle()
            assert (await report(hub, devices[0], devices[0].said())).offer is None
        await start
        offer = (await report(hub, devices[0], devices[0].said())).offer
        assert offer is not None
        assert (offer.release, offer.action, offer.rollout) == ("2", "install", view.id)

    inside(tmp_path, run, disk=disk)


def test_new_facts_are_kept(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        new = facts("jetson_nano")
        await report(hub, devices[0], msgspec.structs.replace(devices[0].said(), facts=new))
        assert hub.device("d000").profile == "jetson_nano"

    inside(tmp_path, run)

    async def again() -> None:
        async with hub_inside(tmp_path / "data") as hub:
            assert hub.device("d000").profile == "jetson_nano"

    asyncio.run(again())


def test_a_device_cannot_fill_the_hub_with_names_it_makes_up(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        for number in range(20):
            await report(hub, devices[0], devices[0].said(running=f"made-up-{number}"))
        assert hub.device("d000").models == ()
        assert hub.fleet().on_release == {}

    inside(tmp_path, run)


def test_check_ins_have_a_listener_of_their_own_and_nothing_else_is_there(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data") as hub:
        device = enrolled(hub.client(), hub.url, 1)[0]
        device.check_in()
        link = device.link
        assert link is not None
        for method, path, code in (
            ("GET", CHECKIN, "method_not_allowed"),
            ("POST", "/api/v1/fleet", "not_found"),
        ):
            answer = link.request(method, path, headers=device.headers, body=b"")
            assert decode(answer.body, Problem).code == code
        device.close()


def test_raw_devices_speak_to_a_real_hub(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data") as hub:
        device: RawDevice = enrolled(hub.client(), hub.url, 1, labels={"site": "lyon"})[0]
        device.check_in()
        view = hub.client().device(device.name)
        assert (view.online, view.labels) == (True, {"site": "lyon"})
        device.close()


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_a_report_on_a_rollout_that_a_device_has_no_part_in_counts_nowhere(
    tmp_path: Path, kind: OutcomeKind
) -> None:
    async def body(hub: Hub, devices: list[InsideDevice]) -> None:
        await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path / "r", "1"))
        spec = RolloutSpec(
            model="digits", release="1", waves=(WaveSpec(percent=10), WaveSpec(percent=100))
        )
        rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
        await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
        offered = [(await report(hub, device, device.said())).offer for device in devices]
        assert sum(offer is not None for offer in offered) == 1
        before = hub.rollout(rollout).evidence
        for device, offer in zip(devices, offered, strict=True):
            if offer is None:
                said = device.said(outcome(f"{device.name}-lie", kind, rollout, "1"))
                answer = await report(hub, device, said)
                # Other outcomes are acknowledged. A start is not, because no rollout admits it.
                leave = kind is not OutcomeKind.TRIAL_STARTED
                assert answer.acked == ((f"{device.name}-lie",) if leave else ())
        assert hub.rollout(rollout).evidence == before
        assert hub.rollout(rollout).exposed == 0
        assert stored_outcomes(tmp_path / "data") == []

    inside(tmp_path, body, devices=10)


def test_a_report_on_a_rollout_that_never_was_is_not_kept(tmp_path: Path) -> None:
    async def body(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        for number, kind in enumerate(OutcomeKind):
            answer = await report(hub, device, device.said(outcome(f"o{number}", kind, "ro-none")))
            # It is acknowledged, so that the device forgets it; a start is not admitted.
            acked = () if kind is OutcomeKind.TRIAL_STARTED else (f"o{number}",)
            assert answer.acked == acked, kind
        assert stored_outcomes(tmp_path / "data") == []

    inside(tmp_path, body)


@pytest.mark.parametrize("huge", [1 << 53, SEQ_MAX + 1, SEQ_MAX])
def test_a_huge_sequence_number_locks_no_device_out(tmp_path: Path, huge: int) -> None:
    async def body(hub: Hub, devices: list[InsideDevice]) -> None:
        device = devices[0]
        device.seq = 41
        await report(hub, device, device.said())
        device.seq = huge - 1  # as by a bug, or by a thief of the credential
        await check_in(hub, device, device.said())
        device.seq = 42  # the device itself goes on, and does as an agent does
        for _ in range(3):
            reply = await check_in(hub, device, device.said())
            if reply.status == 200:
                break
            told = decode(reply.body, Problem).next_seq
            assert told is not None
            device.seq = told - 1
        assert reply.status == 200
        assert device.seq < 1 << 40
        again = await check_in(hub, device, replace(device.said(), seq=device.seq - 1))
        assert again.status == 409  # replays are refused as before

    inside(tmp_path, body)


def test_an_agent_of_protocol_1_is_shown_and_gets_no_release(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        old, new = devices
        old.protocol = OLDEST_SERVED - 1
        await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "2"))
        for device in devices:
            await report(hub, device, device.said())
        spec = RolloutSpec(
            model="digits", release="2", skip_ineligible=True, waves=(WaveSpec(percent=100),)
        )
        view = await hub.plan(spec, OPERATOR_TOKEN)
        assert view.ineligible == {"agent_too_old": 1}
        await hub.command(view.id, Verb.START, Command(), OPERATOR_TOKEN)
        assert (await report(hub, new, new.said())).offer is not None
        start = outcome("start", OutcomeKind.TRIAL_STARTED, view.id)
        answer = await report(hub, old, old.said(start, phase=Phase.TRIAL))
        assert (answer.offer, answer.acked) == (None, ())
        assert hub.rollout(view.id).exposed == 0
        waits = hub.why_device(old.name).waits
        assert [wait.code.value for wait in waits] == ["ineligible"], "the device is online"
        assert "speaks protocol 1" in waits[0].text

    inside(tmp_path, run, devices=2)


def test_a_protocol_that_is_not_served_is_counted_in_the_plan_and_said(tmp_path: Path) -> None:
    async def run(hub: Hub, devices: list[InsideDevice]) -> None:
        await publish_inside(hub, PublisherKey.generate(), tiny_release(tmp_path, "2"))
        for device, protocol in zip(devices, (PROTOCOL + 1, 0, 1 << 60), strict=True):
            device.protocol = protocol
            reply = await check_in(hub, device, device.said())
            assert decode(reply.body, Problem).code == "protocol_unsupported"
        spec = RolloutSpec(model="digits", release="2", skip_ineligible=True)
        with pytest.raises(OperatorError) as caught:
            await hub.plan(spec, OPERATOR_TOKEN)
        assert caught.value.code == "fleet_empty"
        devices[0].protocol = ONE_MODEL
        await report(hub, devices[0], devices[0].said())
        view = await hub.plan(spec, OPERATOR_TOKEN)
        assert view.ineligible == {"agent_too_old": 2}
        assert (
            f"this hub serves protocols {OLDEST_SERVED} to {PROTOCOL}"
            in hub.why_device(devices[1].name).line
        )

    inside(tmp_path, run, devices=3)
