"""A hub as a process: start, failed start, crash, and shutdown."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from edgefleet.base.errors import OperatorError
from edgefleet.base.network import HttpLink
from edgefleet.hub.datadir import Reachable
from edgefleet.hub.hub import Hub
from edgefleet.hub.server import checkin_limits, serve
from edgefleet.hub.settings import Address, HubSettings
from edgefleet.protocol.wire import Problem, decode
from support.hub_process import running_hub
from support.raw_device import enrolled


def test_two_hubs_cannot_share_a_data_folder(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data"):
        command = [sys.executable, "-m", "edgefleet.hub", "--data-dir", str(tmp_path / "data")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert second.stderr.startswith("data_dir_in_use")
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("option", ["--listen", "--checkin-listen"])
def test_a_port_that_is_taken_is_a_typed_error_and_frees_the_folder(
    tmp_path: Path, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = {"--listen": "127.0.0.1:0", "--checkin-listen": "127.0.0.1:0"}
        options[option] = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "edgefleet.hub", "--data-dir", str(tmp_path / "data")]
        for name, value in options.items():
            command += [name, value]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("address_in_use")
    with running_hub(tmp_path / "data") as hub:
        assert hub.client().health().status == "ok"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_hub_that_is_told_to_stop_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    with running_hub(tmp_path / "data") as hub:
        device = enrolled(hub.client(), hub.url, 1)[0]
        device.check_in()  # an open connection must not delay the shutdown
        os.kill(hub.pid, number)
        assert hub.process is not None
        assert hub.process.wait(20) == 0
        assert hub.log.read_text() == ""
        hub.start()
        device.check_in()
        device.close()


def test_a_defect_is_said_to_be_one_and_its_traceback_is_logged_once(tmp_path: Path) -> None:
    fault = """
from edgefleet.hub.hub import Hub
def broken(self):
    raise ZeroDivisionError("planted")
Hub.fleet = broken
"""
    with running_hub(tmp_path / "data", fault=fault) as hub:
        link = HttpLink(hub.url)
        headers = {"Authorization": f"Bearer {hub.token}"}
        answer = link.request("GET", "/api/v1/fleet", headers=headers)
        link.close()
        problem = decode(answer.body, Problem)
        assert (answer.status, problem.code) == (500, "internal")
        assert b"planted" not in answer.body
        assert hub.client().health().status == "ok"
    assert hub.log.read_text().count("ZeroDivisionError: planted") == 1


def test_a_hub_whose_engine_fails_ends_instead_of_pretending(tmp_path: Path) -> None:
    fault = f"""
import pathlib
from edgefleet.hub.rollout_commands import RolloutCommands
async def broken(self):
    if pathlib.Path({str(tmp_path / "now")!r}).exists():
        raise ZeroDivisionError("planted")
RolloutCommands.evaluate = broken
"""
    with running_hub(tmp_path / "data", fault=fault) as hub:
        (tmp_path / "now").touch()
        assert hub.process is not None
        assert hub.process.wait(20) not in (0, None)
        assert "ZeroDivisionError: planted" in hub.log.read_text()


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to", "connections"),
    [
        (1024, 4096, 4096, 1948),
        (1024, resource.RLIM_INFINITY, 60_200, 50_000),
        (1024, 1_000_000, 60_200, 50_000),
        (1_000_000, 1_000_000, None, 50_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 50_000),
        (64, 64, 64, 1),
    ],
)
def test_a_hub_takes_as_many_connections_as_the_system_lets_it_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised_to: int | None, connections: int
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limits: asked.append(limits[0]))
    assert checkin_limits().connections == connections
    assert set(asked) == (set() if raised_to is None else {raised_to})


def test_a_hub_runs_inside_another_program(tmp_path: Path) -> None:
    ready: list[Reachable] = []

    async def main() -> None:
        stop = asyncio.Event()

        def on_ready(hub: Hub, reachable: Reachable) -> None:
            assert hub.health().status == "ok"
            ready.append(reachable)
            stop.set()

        settings = HubSettings(
            data_dir=tmp_path / "data", listen="127.0.0.1:0", checkin_listen="127.0.0.1:0"
        )
        await serve(settings, on_ready=on_ready, stop=stop)

    asyncio.run(main())
    asyncio.run(main())  # the folder is unlocked, and the ports are the same
    assert len(ready) == 2
    assert ready[0].port == ready[1].port
    assert ready[0].checkin_port == ready[1].checkin_port


async def ask(url: str, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: hub\r\n\r\n".encode())
    return reader, writer


def test_a_stop_ends_pages_that_live_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream ends correctly, a waiting request gets an answer, and nothing is logged."""

    async def stream(_request: Request) -> Response:
        async def news() -> AsyncIterator[bytes]:
            yield b"data: first\n\n"
            await asyncio.Event().wait()

        return StreamingResponse(news())

    async def never(_request: Request) -> Response:
        waiting.set()
        await asyncio.Event().wait()
        return Response()

    async def main() -> list[bytes]:
        nonlocal waiting
        waiting, stop = asyncio.Event(), asyncio.Event()
        answers: list[asyncio.Task[bytes]] = []

        async def client(url: str) -> None:
            reader, writer = await ask(url, "/stream")
            other, other_writer = await ask(url, "/never")
            head = await reader.readuntil(b"first\n\n")
            await waiting.wait()
            stop.set()
            answers.extend(asyncio.create_task(each.read()) for each in (reader, other))
            answers[0].add_done_callback(lambda _task: writer.close())
            answers[1].add_done_callback(lambda _task: other_writer.close())
            assert b"chunked" in head

        clients: list[asyncio.Task[None]] = []
        settings = HubSettings(
            data_dir=tmp_path / "data", listen="127.0.0.1:0", checkin_listen="127.0.0.1:0"
        )
        await serve(
            settings,
            routes_for=lambda _hub: [Route("/stream", stream), Route("/never", never)],
            on_ready=lambda _hub, at: clients.append(asyncio.create_task(client(at.url))),
            stop=stop,
        )
        await clients[0]
        return [await answer for answer in answers]

    waiting = asyncio.Event()
    streamed, unanswered = asyncio.run(main())
    assert streamed.endswith(b"0\r\n\r\n")  # the last chunk: the stream is complete
    assert unanswered.startswith(b"HTTP/1.1 503 ")
    assert decode(unanswered.partition(b"\r\n\r\n")[2], Problem).code == "overloaded"
    assert caplog.records == []


def test_a_port_that_somebody_took_meanwhile_is_not_insisted_on(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data", reserve_ports=False) as hub:
        before = hub.said()
        hub.stop()
        with socket.create_server(("127.0.0.1", before["port"])):
            hub.start()
            assert hub.said()["port"] != before["port"]
            assert hub.said()["checkin_port"] == before["checkin_port"]


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("127.0.0.1:8400", "127.0.0.1", 8400, "http://127.0.0.1:8400"),
        ("[::1]:80", "::1", 80, "http://[::1]:80"),
        ("hub.example:1", "hub.example", 1, "http://hub.example:1"),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int, url: str) -> None:
    address = Address.parse(text, field="listen")
    assert (address.host, address.port, address.url()) == (host, port, url)


@pytest.mark.parametrize("text", ["", "8400", "host:", "host:x", "host:70000", "::1:80", "host:-1"])
def test_what_is_no_address_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(OperatorError) as refused:
        HubSettings(data_dir=tmp_path, listen=text)
    assert (refused.value.code, refused.value.field) == ("setting_invalid", "listen")


@pytest.mark.parametrize("field", ["interval_s", "tick_s", "max_artifact_bytes"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_setting_out_of_range_is_refused(tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(OperatorError) as refused:
        HubSettings(data_dir=tmp_path, **{field: value})
    assert (refused.value.code, refused.value.field) == ("setting_invalid", field)


def test_devices_behind_a_wildcard_are_told_the_name_they_used(tmp_path: Path) -> None:
    async def main() -> None:
        for listen, told, expected in (
            ("0.0.0.0:8401", None, "http://hub.example:8401"),
            ("127.0.0.1:8401", None, "http://127.0.0.1:8401"),
            ("0.0.0.0:8401", "https://edge.example", "https://edge.example"),
        ):
            settings = HubSettings(
                data_dir=tmp_path / "data", checkin_listen=listen, checkin_url=told
            )
            hub = await Hub.open(settings)
            assert hub.checkin_url("hub.example") == expected
            await hub.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "content"), [("hub.secret", "nonsense"), ("hub.secret", "ab"), ("operator.token", "")]
)
def test_a_damaged_secret_is_refused_not_replaced(tmp_path: Path, name: str, content: str) -> None:
    async def main() -> None:
        hub = await Hub.open(HubSettings(data_dir=tmp_path / "data"))
        await hub.close()
        (tmp_path / "data" / name).write_text(content)
        for _ in range(2):  # the folder is unlocked each time
            with pytest.raises(OperatorError, match="data_dir_damaged"):
                await Hub.open(HubSettings(data_dir=tmp_path / "data"))
        assert (tmp_path / "data" / name).read_text() == content

    asyncio.run(main())


def read_to_end(connection: socket.socket) -> bytes:
    connection.settimeout(20)
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            said += piece
    return said


IMPATIENT = """
from edgefleet.hub import bodies, uvicorn_limits, server
uvicorn_limits.OPERATOR_HEAD_S = {head_s}
bodies.JSON_BODY_S = {body_s}
server.OPERATOR_CONNECTIONS = 4
"""


@pytest.mark.parametrize(
    ("begun", "answered"),
    [
        (b"", False),
        (b"GET / HTTP/1.1\r\nX: ", False),
        (b"GET / HTTP/1.1\r\nX: ", True),
        (b"\r\n", False),
        (b"\r\n", True),
    ],
    ids=["nothing", "half a head", "half a second head", "empty lines", "empty lines later"],
)
def test_who_does_not_finish_a_head_is_cut_off(
    tmp_path: Path, begun: bytes, answered: bool
) -> None:
    with running_hub(tmp_path / "data", fault=IMPATIENT.format(head_s=2, body_s=60)) as hub:
        port = int(hub.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            if answered:
                slow.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
                slow.settimeout(20)
                assert slow.recv(65536).startswith(b"HTTP/1.1 200")
            slow.sendall(begun)
            assert b"HTTP/1.1" not in read_to_end(slow)


def test_a_head_without_an_end_is_cut_off(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data") as hub:
        port = int(hub.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as endless:
            endless.sendall(b"GET / HTTP/1.1\r\n")
            with pytest.raises(OSError):
                endless.sendall((b"X: " + b"x" * 1000 + b"\r\n") * (64 << 10))


def test_a_body_that_drips_is_refused(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data", fault=IMPATIENT.format(head_s=60, body_s=0.3)) as hub:
        port = int(hub.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(
                b"POST /device/v1/enrol HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert b"request_too_slow" in read_to_end(slow)


def test_connections_to_the_main_listener_are_bounded_and_check_ins_go_on(tmp_path: Path) -> None:
    with running_hub(tmp_path / "data", fault=IMPATIENT.format(head_s=60, body_s=60)) as hub:
        device = enrolled(hub.client(), hub.url, 1)[0]
        port = int(hub.url.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            crowd = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(8)
            ]
            assert read_to_end(crowd[0]) == b""  # the oldest gives way
            device.check_in()
        device.close()
