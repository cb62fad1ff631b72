"""The main listener under clients that take places, send slowly, or do not read."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgefleet.base.ids import sha256_hex
from edgefleet.base.network import HttpLink
from edgefleet.hub.connection_places import ConnectionPlaces, Worth
from edgefleet.hub.limits import OPERATOR_WRITE_S
from edgefleet.hub.server import _bind
from edgefleet.hub.settings import Address
from support.hub_process import HubProcess, running_hub
from support.raw_device import RawDevice, enrolled


@dataclass(eq=False)
class FakeClient:
    name: str
    peer: str
    idle: bool = True

    def is_idle(self) -> bool:
        return self.idle


def test_the_oldest_connection_of_the_least_worth_gives_way() -> None:
    places = ConnectionPlaces(4, 4)
    person, device, first, second = (FakeClient(name, name) for name in "pdab")
    for client in (person, device, first, second):
        assert places.enter(client) is None
    places.shown(person, Worth.PERSON)
    places.shown(device, Worth.DEVICE)
    third, fourth, fifth = (FakeClient(name, name) for name in "cde")
    assert places.enter(third) is first
    places.shown(third, Worth.PERSON)
    assert places.enter(fourth) is second
    places.shown(fourth, Worth.PERSON)
    assert places.enter(fifth) is device
    places.shown(fifth, Worth.DEVICE)
    fifth.idle = False  # a download is not interrupted, and people are not
    last = FakeClient("l", "l")
    assert places.enter(last) is last
    places.remove(fifth)
    places.remove(fifth)  # without effect
    assert places.enter(last) is None


def test_an_address_with_its_share_takes_places_from_itself_only() -> None:
    places = ConnectionPlaces(10, 2)
    others = [FakeClient(f"o{number}", f"o{number}") for number in range(3)]
    crowd = [FakeClient(f"c{number}", "crowd") for number in range(5)]
    assert [places.enter(other) for other in others] == [None] * 3
    left = [places.enter(client) for client in crowd]
    assert left == [None, None, crowd[0], crowd[1], crowd[2]]
    for client in crowd[3:]:
        places.shown(client, Worth.PERSON)
    late = FakeClient("late", "crowd")
    assert places.enter(late) is late


BOUNDED = """
from edgefleet.hub import bodies, downloads, file_sending, server, uvicorn_limits
server.OPERATOR_CONNECTIONS = 16
server.OPERATOR_WRITE_S = file_sending.OPERATOR_WRITE_S = {write_s}
uvicorn_limits.OPERATOR_WRITE_S = {write_s}
server.DOWNLOADS_AT_ONCE = {most}
downloads.DOWNLOADS_OF_ONE = {of_one}
"""
SIZE = 64 << 20


def opened(hub: HubProcess, stack: contextlib.ExitStack, source: str = "") -> socket.socket:
    port = int(hub.url.rpartition(":")[2])
    address = (source, 0) if source else None
    return stack.enter_context(
        socket.create_connection(("127.0.0.1", port), 20, source_address=address)
    )


def artifact(hub: HubProcess, size: int = SIZE) -> str:
    """An artifact of the hub, as if it had been uploaded."""
    data = os.urandom(1 << 20)
    digest = sha256_hex(data)
    place = hub.data_dir / "blobs" / digest[:2] / digest
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    os.truncate(place, size)
    return digest


def ask(connection: socket.socket, digest: str, token: str) -> None:
    """Ask for an artifact, and read nothing."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(
        f"GET /device/v1/artifacts/{digest} HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )


def rss_mib(hub: HubProcess) -> float:
    lines = Path(f"/proc/{hub.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def test_a_crowd_without_a_credential_does_not_keep_an_operator_out(tmp_path: Path) -> None:
    fault = BOUNDED.format(write_s=30, most=8, of_one=8)
    with running_hub(tmp_path / "data", fault=fault) as hub, contextlib.ExitStack() as stack:
        (device,) = enrolled(hub.client(), hub.url, 1)
        for number in range(60):  # from three addresses
            crowd = opened(hub, stack, f"127.0.0.{2 + number % 3}")
            crowd.sendall(b"GET /health HTTP/1.1\r\nX: ")
        client = hub.client()
        assert client.fleet().total == 1
        for _ in range(40):
            opened(hub, stack, "127.0.0.5")
        assert client.fleet().total == 1  # over the same connection
        device.check_in()


@pytest.fixture(name="hub")
def _hub(tmp_path: Path) -> Iterator[HubProcess]:
    fault = BOUNDED.format(write_s=2, most=6, of_one=4)
    with running_hub(tmp_path / "data", fault=fault) as hub:
        yield hub


def test_a_download_that_is_not_read_costs_no_memory_and_ends(hub: HubProcess) -> None:
    devices = enrolled(hub.client(), hub.url, 2)
    digest = artifact(hub)
    before = rss_mib(hub)
    with contextlib.ExitStack() as stack:
        stalled = []
        for _ in range(4):
            stalled.append(opened(hub, stack, "127.0.0.2"))
            ask(stalled[-1], digest, devices[0].token)
        assert all(one.recv(12) == b"HTTP/1.1 200" for one in stalled)
        fifth = opened(hub, stack)
        ask(fifth, digest, devices[0].token)
        refusal = fifth.recv(4096)
        assert refusal.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in refusal
        read_whole(hub, devices[1], digest)  # another device
        assert rss_mib(hub) - before < 8  # 64 MiB each, of which nobody reads
        for one in stalled:
            assert cut_off(one)
    read_whole(hub, devices[0], digest)  # its places are free again
    assert hub.log.read_text() == ""


@pytest.mark.long
@pytest.mark.parametrize(("stalled", "idle"), [(500, 0), (5_200, 0), (0, 5_100), (0, 10_000)])
def test_crowds_cost_little_and_operators_are_answered(
    tmp_path: Path, stalled: int, idle: int
) -> None:
    with running_hub(tmp_path / "data") as hub, contextlib.ExitStack() as stack:
        (device,) = enrolled(hub.client(), hub.url, 1)
        digest = artifact(hub)
        before = rss_mib(hub)
        for number in range(stalled + idle):
            connection = opened(hub, stack, f"127.0.0.{2 + number % 50}")
            if number < stalled:
                ask(connection, digest, device.token)
        assert hub.client().fleet().total == 1
        device.check_in()
        print(f"{stalled} stalled, {idle} idle: {rss_mib(hub) - before:.0f} MiB more")
        assert rss_mib(hub) < 400


def test_connections_inherit_the_deadline_for_writes() -> None:
    with _bind(Address("127.0.0.1", 0)) as listening:
        listening.setblocking(True)
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                found = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert found == OPERATOR_WRITE_S * 1000


def read_whole(hub: HubProcess, device: RawDevice, digest: str) -> None:
    link = HttpLink(hub.url)
    try:
        path = f"/device/v1/artifacts/{digest}"
        answer = link.download(path, headers=device.headers)
        assert (answer.status, sum(len(piece) for piece in answer.chunks)) == (200, SIZE)
        tail = link.request("GET", path, headers={**device.headers, "Range": "bytes=-5"})
        assert (tail.status, tail.body) == (206, bytes(5))  # and the connection goes on
    finally:
        link.close()


def cut_off(connection: socket.socket) -> bool:
    """Whether the hub ends the connection before its client has the whole."""
    open_until = time.monotonic() + 30  # a machine may be busy, and time is not under test
    taken = 0
    while time.monotonic() < open_until:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        if info[0] != 1:  # no longer established
            break
        time.sleep(0.05)
    with contextlib.suppress(OSError):
        while piece := connection.recv(1 << 20):
            taken += len(piece)
    return taken < SIZE
