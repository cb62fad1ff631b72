"""Web hooks deliver each event, in order and signed, and no receiver can delay anything else."""

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.hub.hooks.post import DeliveryError, Poster, check_url, is_open
from edgefleet.hub.hub import Hub
from edgefleet.protocol.events import Event
from edgefleet.protocol.hooks import AddHook, ChangeHook, CreatedHook, HookView, ReplayLetters
from edgefleet.protocol.rollout import Freeze
from edgefleet.protocol.wire import decode
from edgefleet.security.principals import OPERATOR_TOKEN
from support.hub_inside import START, hub_inside

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
BROKEN = b"HTTP/1.1 500 Oops\r\n\r\n"


class Receiver:
    """A server on this machine. ``answer`` None: it never answers."""

    def __init__(self) -> None:
        self.answer: bytes | None = OK
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self._more = asyncio.Event()

    @property
    def events(self) -> list[Event]:
        return [decode(body, Event) for body in self.bodies]

    @property
    def notes(self) -> list[str]:
        return [event.detail for event in self.events]

    async def has(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.bodies) < count:
                self._more.clear()
                await self._more.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            _, *lines = head.strip().split("\r\n")
            fields = {line.split(": ")[0]: line.split(": ")[1] for line in lines}
            self.heads.append({**fields, "": head.split("\r\n")[0]})
            self.bodies.append(await reader.readexactly(int(fields["Content-Length"])))
            self._more.set()
            if self.answer is None:
                await reader.read()  # until the hub disconnects
                return
            writer.write(self.answer)
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in?key=1"
    try:
        yield made
    finally:
        server.close()


async def freeze(hub: Hub, note: str) -> None:
    await hub.freeze(Freeze(frozen=True, note=note), OPERATOR_TOKEN)


async def added(hub: Hub, url: str, *kinds: str) -> CreatedHook:
    return await hub.hooks.add(AddHook(url=url, kinds=kinds or ("fleet.*",)), OPERATOR_TOKEN)


async def seen(hub: Hub, is_so: Callable[[HookView], object], hook: str = "") -> HookView:
    """The view of a hook once it ``is_so``."""
    async with asyncio.timeout(30):
        while True:
            for view in hub.hooks.views().hooks:
                if hook in ("", view.id) and is_so(view):
                    return view
            await asyncio.sleep(0.01)


def inside(
    tmp_path: Path, *stories: Callable[[Hub, Receiver], Awaitable[None]], local: bool = True
) -> None:
    """Each story on the same store and with the same receiver, with a restart before each."""

    async def main() -> None:
        async with receiver() as one:
            for story in stories:
                async with hub_inside(tmp_path / "data", allow_local_hooks=local) as hub:
                    hub.hooks.start()
                    await story(hub, one)

    asyncio.run(main())


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOOK_RETRY_S", 0.01), ("HOOK_RETRY_MAX_S", 0.02), ("HOOK_ATTEMPTS", 3)):
        monkeypatch.setattr(f"edgefleet.hub.hooks.deliveries.{name}", value)


def test_events_from_now_on_are_delivered_in_order_and_signed(tmp_path: Path) -> None:
    async def story(hub: Hub, to: Receiver) -> None:
        await freeze(hub, "before")
        made = await added(hub, to.url)
        for number in range(5):
            await freeze(hub, f"n{number}")
        await to.has(5)
        assert to.notes == [f"n{number}" for number in range(5)]
        assert to.heads[0][""] == "POST /in?key=1 HTTP/1.1"
        assert to.heads[0]["Edgefleet-Delivery"] == f"{made.view.id}/{to.events[0].id}"
        # As docs/api.md says, without the product's own function.
        at, mac = to.heads[0]["Edgefleet-Signature"].removeprefix("t=").split(",v1=")
        assert int(at) == int(START)
        text = at.encode() + b"." + to.bodies[0]
        assert hmac.new(made.secret.encode(), text, hashlib.sha256).hexdigest() == mac
        view = await seen(hub, lambda one: one.behind == 0)
        assert (view.failure, view.dead_letters, view.missed) == ("", 0, 0)
        line = next(one for one in hub.event_log.after(0) if one.kind == "hook.add_hook")
        assert line.detail == "http://127.0.0.1"  # the path may be a secret

    inside(tmp_path, story)


@pytest.mark.usefixtures("hurry")
def test_an_event_that_cannot_be_delivered_is_kept_and_the_next_follows(tmp_path: Path) -> None:
    async def story(hub: Hub, to: Receiver) -> None:
        to.answer = BROKEN
        await added(hub, to.url)
        await freeze(hub, "first")
        view = await seen(hub, lambda one: one.dead_letters == 1)
        assert view.failure == "The answer had the status 500."
        assert to.notes == ["first"] * 3
        assert len({head["Edgefleet-Delivery"] for head in to.heads}) == 1
        to.answer = OK
        await freeze(hub, "second")
        await to.has(4)
        assert to.notes[3] == "second"
        await seen(hub, lambda one: one.failure == "")

    async def restarted(hub: Hub, to: Receiver) -> None:
        (hook,) = hub.hooks.views().hooks
        (letter,) = hub.hooks.letters(hook.id).letters
        assert (letter.event.detail, letter.attempts) == ("first", 3)
        to.answer = BROKEN
        again = await hub.hooks.replay(hook.id, ReplayLetters())
        assert (again.delivered, again.failed) == (0, 1)
        assert again.reason == "The answer had the status 500."
        to.answer = OK
        assert (await hub.hooks.replay(hook.id, ReplayLetters(numbers=(99,)))).delivered == 0
        again = await hub.hooks.replay(hook.id, ReplayLetters(numbers=(letter.number,)))
        assert (again.delivered, again.failed, again.reason) == (1, 0, "")
        assert to.notes[-1] == "first"
        assert hub.hooks.letters(hook.id).letters == ()

    inside(tmp_path, story, restarted)


def test_a_receiver_that_hangs_delays_nothing_else(tmp_path: Path) -> None:
    async def story(hub: Hub, to: Receiver) -> None:
        to.answer = None
        stuck = (await added(hub, to.url)).view.id
        async with receiver() as other:
            fine = (await added(hub, other.url)).view.id
            for number in range(3):
                await freeze(hub, f"n{number}")
            await other.has(3)
            await to.has(1)
            assert (other.notes, to.notes) == (["n0", "n1", "n2"], ["n0"])
            await seen(hub, lambda one: one.behind == 0, fine)
            assert (await seen(hub, lambda one: True, stuck)).behind >= 3
            await hub.hooks.remove(stuck, OPERATOR_TOKEN)
            assert [one.id for one in hub.hooks.views().hooks] == [fine]

    inside(tmp_path, story)


def test_deliveries_go_on_after_a_restart_and_after_a_pause(tmp_path: Path) -> None:
    async def before(hub: Hub, to: Receiver) -> None:
        hook = (await added(hub, to.url)).view.id
        await freeze(hub, "one")
        await to.has(1)
        await seen(hub, lambda one: one.behind == 0)
        await hub.hooks.change(hook, ChangeHook(enabled=False), OPERATOR_TOKEN)
        await freeze(hub, "two")

    async def restarted(hub: Hub, to: Receiver) -> None:
        (view,) = hub.hooks.views().hooks
        assert not view.enabled
        await freeze(hub, "three")
        await hub.hooks.change(view.id, ChangeHook(enabled=True), OPERATOR_TOKEN)
        await to.has(3)
        assert to.notes == ["one", "two", "three"]

    inside(tmp_path, before, restarted)


def test_events_that_left_the_log_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(hub: Hub, to: Receiver) -> None:
        hook = (await added(hub, to.url)).view.id
        await seen(hub, lambda one: one.behind == 0)
        await hub.hooks.change(hook, ChangeHook(enabled=False), OPERATOR_TOKEN)
        for number in range(5):
            await freeze(hub, f"n{number}")
        monkeypatch.setattr("edgefleet.hub.event_log.EVENTS_KEPT", 3)
        await hub.hooks.change(hook, ChangeHook(enabled=True), OPERATOR_TOKEN)
        view = await seen(hub, lambda one: one.behind == 0)
        assert (to.notes, view.missed) == (["n3", "n4"], 4)  # with disable_hook

    inside(tmp_path, story)


@pytest.mark.usefixtures("hurry")
def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async def story(hub: Hub, to: Receiver) -> None:
        async with receiver() as target:
            to.answer = f"HTTP/1.1 302 Found\r\nLocation: {target.url}\r\n\r\n".encode()
            await added(hub, to.url)
            await freeze(hub, "x")
            view = await seen(hub, lambda one: one.dead_letters)
            assert (view.failure, target.bodies) == ("The answer had the status 302.", [])

    inside(tmp_path, story)


@pytest.mark.usefixtures("hurry")
def test_this_machine_is_no_receiver_unless_a_setting_allows_it(tmp_path: Path) -> None:
    async def story(hub: Hub, to: Receiver) -> None:
        for host in ("127.0.0.1", "[::1]", "169.254.169.254", "0.0.0.0", "[::ffff:127.0.0.1]"):
            with pytest.raises(OperatorError) as caught:
                await added(hub, f"http://{host}/")
            assert (caught.value.code, caught.value.field) == ("hook_address_refused", "url")
        await added(hub, to.url.replace("127.0.0.1", "localhost"))
        await freeze(hub, "x")
        view = await seen(hub, lambda one: one.dead_letters)
        assert "only addresses of this machine" in view.failure
        assert to.bodies == []

    inside(tmp_path, story, local=False)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("93.184.216.34", True), ("10.0.0.7", True), ("192.168.1.9", True), ("fd00::7", True),
        ("2606:2800:220:1::1", True), ("127.8.0.1", False), ("169.254.169.254", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False),
        ("::", False), ("fe80::1", False), ("::ffff:127.0.0.1", False), ("::ffff:10.0.0.7", True),
        ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_addresses_that_a_hook_may_use(address: str, may: bool) -> None:
    assert is_open(ipaddress.ip_address(address)) is may


@pytest.mark.parametrize(
    "url",
    ["", "ci.example.org", "ftp://a/", "http://", "http://u:p@a/", "http://a b/", "http://a:99999/",
     "http://a/\r\nX: y", "http://é/", "file:///etc/passwd", "http://:p@a/"],
)  # fmt: skip
def test_a_text_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(OperatorError) as caught:
        check_url(url)
    assert (caught.value.code, caught.value.field) == ("bad_request", "url")


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"HTTP/1.1 2", "0 bytes"), (b"", "0 bytes"), (b"SSH-2.0-x\r\n", "not HTTP/1.1"),
        (b"x" * 100_000, "limit"), (b"HTTP/1.1 abc\r\n", "not HTTP/1.1"), (None, "No answer within"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None, failure: str
) -> None:
    if answer is None:
        monkeypatch.setattr("edgefleet.hub.hooks.post.HOOK_TIMEOUT_S", 0.05)

    async def main() -> None:
        poster = Poster(allow_local=True)
        async with receiver() as to:
            to.answer = answer
            with pytest.raises(DeliveryError, match=failure):
                await poster.post(to.url, {}, b"{}")
        poster.close()

    asyncio.run(main())
