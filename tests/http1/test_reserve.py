"""A listener that is full answers urgent requests, and names the bound to the others."""

import socket
from contextlib import ExitStack, suppress

from edgefleet.http1.limits import REFUSED, ConnectionLimits
from edgefleet.http1.message import Reply, Request
from support.http1_wire import GUARD_S, Raw, RunningListener, get, post, running

LIMITS = ConnectionLimits(
    connections=3,
    peer_connections=2,
    reserved_connections=2,
    reserved_idle_s=0.1,
    linger_s=5.0,
    body_bytes=1 << 20,
)


def peer(request: Request) -> Reply:
    return Reply(200, f"{request.path} {request.peer}".encode())


def is_health(request: Request) -> bool:
    return request.path == "/health"


def connect(server: RunningListener, peer: str) -> Raw:
    return Raw(
        socket.create_connection(
            ("127.0.0.1", server.port), timeout=GUARD_S, source_address=(peer, 0)
        )
    )


def idle(server: RunningListener, *peers: str) -> ExitStack:
    """Connections that have asked once and stay open."""
    stack = ExitStack()
    for one in peers:
        connection = connect(server, one)
        stack.callback(connection.sock.close)
        connection.send(get("/"))
        assert connection.answer().status == 200
    return stack


def test_the_handler_gets_the_address_of_the_client() -> None:
    with running(peer, limits=LIMITS) as server:
        connection = connect(server, "127.0.0.3")
        connection.send(get("/a"))
        assert connection.answer().body == b"/a 127.0.0.3"


def test_a_peer_with_its_share_is_refused_while_another_is_served() -> None:
    with running(peer, limits=LIMITS) as server, idle(server, "127.0.0.1", "127.0.0.1"):
        refused = connect(server, "127.0.0.1")
        refused.send(get("/"))
        answer = refused.answer()
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"
        assert "127.0.0.1 has 2 connections" in answer.body.decode()
        other = connect(server, "127.0.0.2")
        other.send(get("/"))
        assert other.answer().status == 200


def test_an_urgent_request_is_answered_once_although_all_connections_are_in_use() -> None:
    peers = ("127.0.0.1", "127.0.0.1", "127.0.0.2")
    with running(peer, limits=LIMITS, urgent=is_health) as server, idle(server, *peers):
        for _ in range(5):  # each gives its place back
            probe = connect(server, "127.0.0.1")
            probe.send(get("/health"))
            answer = probe.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert probe.sock.recv(1) == b""


def test_a_body_on_a_reserved_connection_is_refused_at_its_head() -> None:
    peers = ("127.0.0.1", "127.0.0.1", "127.0.0.2")
    with running(peer, limits=LIMITS, urgent=is_health) as server, idle(server, *peers):
        large = connect(server, "127.0.0.2")
        large.send(post("/health", b"x" * 900_000)[:200])  # the rest never comes
        assert large.answer().status == 503


def test_idle_connections_cannot_hold_the_reserve() -> None:
    peers = ("127.0.0.1", "127.0.0.1", "127.0.0.2")
    with running(peer, limits=LIMITS, urgent=is_health) as server, idle(server, *peers):
        first, second = connect(server, "127.0.0.1"), connect(server, "127.0.0.2")
        assert first.sock.recv(1) == b"", "closed after reserved_idle_s"
        assert second.sock.recv(1) == b""
        probe = connect(server, "127.0.0.1")
        probe.send(get("/health"))
        assert probe.answer().status == 200


def test_refused_connections_are_bounded_too() -> None:
    with running(peer, limits=LIMITS, urgent=is_health) as server, ExitStack() as stack:
        for _ in range(2 * REFUSED + 5):
            stack.callback(connect(server, "127.0.0.1").sock.close)
        last = connect(server, "127.0.0.1")
        stack.callback(last.sock.close)
        with suppress(ConnectionError):
            assert last.sock.recv(1) == b"", "closed without a word"
        most = LIMITS.connections + LIMITS.reserved_connections + REFUSED
        assert len(server.listener.connections) <= most
