"""Listening, closing, and clients that disconnect."""

import asyncio
import socket
import stat
import threading
from collections.abc import Awaitable
from pathlib import Path

import pytest

from edgefleet.base.errors import OperatorError
from edgefleet.base.network import HttpLink
from edgefleet.http1.limits import ConnectionLimits
from edgefleet.http1.message import Reply, Request
from edgefleet.http1.server import listen
from support.http1_wire import GUARD_S, Raw, get, post, running
from support.waiting import until


class Held:
    """A handler whose answers wait until the test sends them."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.finished = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate = asyncio.Event()

    def __call__(self, request: Request) -> Reply | Awaitable[Reply]:
        return self._wait() if request.path == "/wait" else Reply(200, b"now")

    async def _wait(self) -> Reply:
        self._loop = asyncio.get_running_loop()
        self.began.set()
        await self._gate.wait()
        self.finished.set()
        return Reply(200, b"held")

    def let_go(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._gate.set)


def ok(_: Request) -> Reply:
    return Reply(200, b"ok")


def test_a_unix_socket_is_for_its_owner_alone_and_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with running(ok, unix_path=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert HttpLink(f"unix:{path}").request("GET", "/").body == b"ok"
    assert not path.exists()


def test_a_socket_file_left_by_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with running(ok, unix_path=path):
        assert HttpLink(f"unix:{path}").request("GET", "/").body == b"ok"


def test_a_unix_socket_in_use_or_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with running(ok, unix_path=path):
        with pytest.raises(OperatorError, match="address_in_use"):
            asyncio.run(_listen_at(path))
        assert HttpLink(f"unix:{path}").request("GET", "/").body == b"ok"
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OperatorError, match="setting_invalid"):
        asyncio.run(_listen_at(file))
    assert file.read_text() == "mine"


async def _listen_at(path: Path) -> None:
    await listen(ok, unix_path=path)


def test_a_port_in_use_is_a_typed_error() -> None:
    async def twice(port: int) -> None:
        await listen(ok, port=port)

    with running(ok) as server, pytest.raises(OperatorError, match="address_in_use"):
        asyncio.run(twice(server.port))


def test_a_host_that_is_not_ours_is_a_typed_error() -> None:
    async def elsewhere() -> None:
        await listen(ok, host="192.0.2.1")

    with pytest.raises(OperatorError, match="setting_invalid"):
        asyncio.run(elsewhere())


def test_closing_answers_what_is_under_way_and_ends_idle_connections() -> None:
    held = Held()
    with running(held) as server:
        busy, idle = server.connect(), server.connect()
        idle.send(get("/now"))
        assert idle.answer().body == b"now"
        busy.send(get("/wait") + get("/now"))
        assert held.began.wait(GUARD_S)
        closing = server.begin_close()
        assert idle.ended()
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        held.let_go()
        assert busy.answer().body == b"held"
        last = busy.answer()
        assert (last.body, last.headers["connection"]) == (b"now", "close")
        assert busy.ended()
        closing.result()


def test_closing_waits_for_a_request_that_is_arriving() -> None:
    with running(lambda request: Reply(200, request.body)) as server:
        client = server.connect()
        client.send(get("/"))
        client.answer()
        client.send(post("/", b"body")[:-2])
        other = server.connect()

        def ask_another() -> None:
            other.send(get("/"))
            other.answer()

        until(
            lambda: server.listener.buffered_bytes,
            "The listener did not read the half body.",
            between=ask_another,
        )
        closing = server.begin_close()
        assert other.ended()
        client.send(b"dy")
        assert client.answer().body == b"body"
        closing.result()


def test_closing_cuts_off_what_does_not_end() -> None:
    held = Held()
    with running(held, limits=ConnectionLimits(drain_s=0.05)) as server:
        client = server.connect()
        client.send(get("/wait"))
        assert held.began.wait(GUARD_S)
        server.begin_close().result()
        assert client.ended()
        held.let_go()
        assert held.finished.wait(GUARD_S)


def test_a_client_that_vanishes_in_its_body_leaves_nothing_behind() -> None:
    with running(ok) as server:
        client = server.connect()
        client.send(post("/", b"x" * 5_000)[:-1])
        other = server.connect()
        while server.listener.buffered_bytes < 4_999:
            other.send(get("/"))
            other.answer()
        client.close()
        other.close()
        assert server.emptied.wait(GUARD_S)
        assert server.listener.buffered_bytes == 0


def test_what_was_begun_for_a_client_that_vanished_is_finished() -> None:
    held = Held()
    with running(held) as server:
        client = server.connect()
        client.send(get("/wait") + get("/now"))
        assert held.began.wait(GUARD_S)
        client.reset()
        assert server.emptied.wait(GUARD_S)
        held.let_go()
        assert held.finished.wait(GUARD_S)
        after = server.connect()
        after.send(get("/now"))
        assert after.answer().body == b"now"
        assert server.crashes == []


def test_a_client_that_resets_in_mid_answer_harms_nobody() -> None:
    large = bytes(16 << 20)
    with running(lambda _: Reply(200, large)) as server:
        client = server.connect()
        client.send(get("/") * 3)
        client.sock.recv(1_000)
        client.reset()
        assert server.emptied.wait(GUARD_S)
        after: Raw = server.connect()
        after.send(get("/"))
        assert after.answer().body == large
        assert server.crashes == []
