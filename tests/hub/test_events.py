"""The event log: one order, bounded, resumable, and readers that cannot fill the hub."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.client.events import read_events
from edgefleet.hub.api import create_app
from edgefleet.hub.event_log import EventLog
from edgefleet.hub.hub import Hub
from edgefleet.protocol.device import OutcomeKind
from edgefleet.protocol.device_commands import RenameDevice
from edgefleet.protocol.events import Event, check_kinds, is_wanted
from edgefleet.protocol.operator import ClaimRequest
from edgefleet.protocol.people import AddUser, CreateToken, RevokeToken, Role
from edgefleet.protocol.rollout import Command, Freeze, RolloutSpec, Verb, WaveSpec
from edgefleet.protocol.wire import Problem, decode
from edgefleet.security.principals import OPERATOR_TOKEN
from edgefleet.security.signing import PublisherKey
from support.asgi import Message, Reply, ask_within
from support.hub_inside import (
    ManualClock,
    enrol_inside,
    hub_inside,
    outcome,
    publish_inside,
    report,
    settle,
)
from support.tiny_releases import tiny_release


def inside(tmp_path: Path, *stories: Callable[[Hub], Awaitable[None]]) -> None:
    """Each of the stories on the same store, with a restart before each but the first."""

    async def main() -> None:
        for story in stories:
            async with hub_inside(tmp_path / "data", ManualClock()) as hub:
                await story(hub)

    asyncio.run(main())


async def freeze(hub: Hub, note: str) -> None:
    await hub.freeze(Freeze(frozen=True, note=note), OPERATOR_TOKEN)


async def ask(
    hub: Hub, query: str, *, enough: Callable[[bytes], bool] = lambda _body: False, **headers: str
) -> Reply:
    token = (hub.folder.root / "operator.token").read_text().strip()
    given = {"authorization": f"Bearer {token}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    app = create_app(hub)
    return await ask_within(app, "GET", f"/api/v1/events{query}", headers=given, enough=enough)


def events_of(reply: Reply) -> list[Event]:
    return [one.event for one in read_events([reply.body]) if one.event is not None]


def test_events_come_in_the_order_of_the_audit_log_and_go_on_where_they_were(
    tmp_path: Path,
) -> None:
    async def before(hub: Hub) -> None:
        await hub.claims(ClaimRequest(), OPERATOR_TOKEN)
        for number in range(3):
            await freeze(hub, f"n{number}")
        reply = await ask(hub, "?after=0&follow=false")
        assert reply.headers["content-type"].startswith("text/event-stream")
        found = events_of(reply)
        assert [(one.id, one.kind, one.detail) for one in found] == [
            (1, "fleet.claim", "1 for 86400 s"),
            (2, "fleet.freeze", "n0"),
            (3, "fleet.freeze", "n1"),
            (4, "fleet.freeze", "n2"),
        ]

    async def restarted(hub: Hub) -> None:
        resumed = await ask(hub, "?after=0&follow=false", last_event_id="2")
        assert [one.id for one in events_of(resumed)] == [3, 4]
        only = await ask(hub, "?after=0&follow=false&kind=fleet.claim&kind=user.*")
        assert [one.id for one in events_of(only)] == [1]
        assert [one.id for one in read_events([only.body])][-1] == 4  # the position, too

    inside(tmp_path, before, restarted)


def test_a_reader_that_follows_gets_an_event_when_it_is_durable(tmp_path: Path) -> None:
    async def story(hub: Hub) -> None:
        await freeze(hub, "before")
        following = asyncio.ensure_future(ask(hub, "", enough=lambda body: b"now" in body))
        while not hub.event_streams.count:  # noqa: ASYNC110 - it opens in the other task
            await asyncio.sleep(0.01)
        await freeze(hub, "now")
        reply = await following
        assert [one.detail for one in events_of(reply)] == ["now"]
        await settle()
        assert hub.event_streams.count == 0

    inside(tmp_path, story)


def test_a_look_at_the_log_takes_nothing_from_a_reader_that_waits(tmp_path: Path) -> None:
    async def story(hub: Hub) -> None:
        log = hub.event_log
        await freeze(hub, "first")
        waiting = asyncio.ensure_future(log.wait(log.last, 60))
        await settle()
        await freeze(hub, "second")
        assert log.last == 2
        async with asyncio.timeout(30):
            await waiting

    inside(tmp_path, story)


def test_a_position_outside_of_the_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(hub: Hub) -> None:
        for number in range(5):
            await freeze(hub, f"n{number}")
        monkeypatch.setattr("edgefleet.hub.event_log.EVENTS_KEPT", 2)
        assert [one.id for one in events_of(await ask(hub, "?after=3&follow=false"))] == [4, 5]
        for position in ("2", "6"):
            reply = await ask(hub, "", last_event_id=position)
            problem = decode(reply.body, Problem)
            assert (reply.status, problem.code, problem.field) == (410, "events_gone", "after")
        for query in ("?after=-1", "?after=x", "?kind=x", "?follow=maybe"):
            reply = await ask(hub, query)
            assert decode(reply.body, Problem).code == "bad_request"

    inside(tmp_path, story)


@pytest.mark.parametrize("memory", [1, 3, 1_000])
def test_old_and_new_events_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    """Whether an event is in memory or in the store makes no difference."""
    monkeypatch.setattr("edgefleet.hub.event_log.EVENTS_IN_MEMORY", memory)

    async def story(hub: Hub) -> None:
        store = hub._store  # noqa: SLF001 - the log of this test
        log = EventLog(store)
        for number in range(8):
            await freeze(hub, f"n{number}")
            log.committed()
            if number % 2:
                assert log.last == number + 1
        for position in range(9):
            found = [one.id for one in log.after(position, 3)]
            assert found == list(range(position + 1, min(position + 4, 9)))

    inside(tmp_path, story)


def test_the_streams_are_limited_and_end_with_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet.hub.event_stream.STREAM_CHECK_S", 0.01)
    monkeypatch.setattr("edgefleet.hub.event_stream.EVENT_STREAMS_OF_ONE", 1)

    async def story(hub: Hub) -> None:
        await hub.people.add_user(AddUser(name="ada", role=Role.VIEWER), OPERATOR_TOKEN)
        made = await hub.people.create_token(CreateToken(user="ada"), OPERATOR_TOKEN)
        headers = {"authorization": f"Bearer {made.token}"}
        app = create_app(hub)
        first = asyncio.ensure_future(ask_within(app, "GET", "/api/v1/events", headers=headers))
        while not hub.event_streams.count:  # noqa: ASYNC110 - it opens in the other task
            await asyncio.sleep(0.01)
        second = await ask_within(app, "GET", "/api/v1/events", headers=headers)
        assert (second.status, decode(second.body, Problem).code) == (503, "overloaded")
        await hub.people.revoke_token(made.view.id, RevokeToken(), OPERATOR_TOKEN)
        reply = await first
        assert all(one.kind != "user.revoke_token" for one in events_of(reply))

    inside(tmp_path, story)


def test_a_reader_that_takes_nothing_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet.hub.event_stream.STREAM_SEND_S", 0.01)

    async def story(hub: Hub) -> None:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) > 1:
                await asyncio.Event().wait()  # the buffer of the connection is full

        response = hub.event_streams.open(OPERATOR_TOKEN, lambda: None, (), after=None, follow=True)
        never = asyncio.Event()

        async def receive() -> Message:
            await never.wait()
            return {}

        await response({"type": "http"}, receive, send)
        assert [message["type"] for message in sent] == [
            "http.response.start", "http.response.body",
        ]  # fmt: skip
        assert hub.event_streams.count == 0

    inside(tmp_path, story)


def test_quarantine_is_an_event_once_also_after_a_restart(tmp_path: Path) -> None:
    def kinds(hub: Hub) -> list[str]:
        found = hub.event_log.after(0)
        return [f"{one.kind} {one.about} {one.detail}" for one in found if "quar" in one.kind]

    async def story(hub: Hub) -> None:
        key = PublisherKey.generate()
        (device,) = await enrol_inside(hub, 1)
        for release in ("1", "2"):
            await publish_inside(hub, key, tiny_release(tmp_path / release, release))
            spec = RolloutSpec(model="digits", release=release, waves=(WaveSpec(percent=100),))
            rollout = (await hub.plan(spec, OPERATOR_TOKEN)).id
            await hub.command(rollout, Verb.START, Command(), OPERATOR_TOKEN)
            for kind in (OutcomeKind.TRIAL_STARTED, OutcomeKind.TRIAL_FAILED):
                said = outcome(f"{release}{kind}", kind, rollout, release)
                await report(hub, device, device.said(said))
            await hub.command(rollout, Verb.HALT, Command(), OPERATOR_TOKEN)
        assert hub.quarantined().count == 1
        await hub.loop.tick()
        await hub.loop.tick()
        assert kinds(hub) == ["device.quarantine device/d000 2 rollbacks of digits"]
        await hub.device_commands.rename(hub.row("d000"), RenameDevice(name="cam"), OPERATOR_TOKEN)

    async def restarted(hub: Hub) -> None:
        await hub.loop.tick()
        assert len(kinds(hub)) == 1

    inside(tmp_path, story, restarted)


def test_kinds_are_patterns() -> None:
    assert is_wanted("rollout.halt", ())
    assert is_wanted("rollout.halt", ("user.*", "rollout.*"))
    assert is_wanted("rollout.halt", ("*",))
    assert not is_wanted("rollout.halt", ("rollout.start", "device.*"))
    for kind in ("", "rollout", "rollout.", "*.halt", "rollout.**", "rollout.h\n"):
        with pytest.raises(OperatorError):
            check_kinds((kind,))
