"""A client that exceeds a limit gets a typed answer and is disconnected."""

import pytest

from edgefleet.http1.known_heads import KnownHeads
from edgefleet.http1.limits import FIRST_BODY_BYTES, RECEIVE_BYTES, ConnectionLimits
from edgefleet.http1.message import Reply, Request
from edgefleet.http1.reader import RequestReader, Room
from support.http1_wire import chunked, get, post, running

SMALL = ConnectionLimits(head_bytes=1_000, body_bytes=2_000, linger_s=0.2)


def echo(request: Request) -> Reply:
    return Reply(200, request.body)


@pytest.mark.parametrize(
    "data",
    [
        get("/", f"X-Long: {'x' * 1_000}"),
        get("/" + "x" * 1_000),
        get("/", *[f"X-{number}: y" for number in range(200)]),
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Endless: " + b"x" * 5_000,
        b"GET /" + b"x" * 5_000,
    ],
)
def test_a_head_that_is_too_large_is_refused(data: bytes) -> None:
    with running(echo, limits=SMALL) as server:
        client = server.connect()
        client.send(data)
        answer = client.answer()
        assert (answer.status, answer.code) == (431, "head_too_large")
        assert client.ended()


@pytest.mark.parametrize(
    "data",
    [
        post("/", b"x" * 2_001),
        post("/", b"", "X: y").replace(b"Content-Length: 0", b"Content-Length: 99999999999"),
        chunked("/", b"x" * 1_500, b"x" * 501),
        chunked("/", *[b"x"] * 2_001),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;ext=" + b"x" * 60_000,
    ],
)
def test_a_body_that_is_too_large_is_refused_however_it_is_sent(data: bytes) -> None:
    with running(echo, limits=SMALL) as server:
        client = server.connect()
        for start in range(0, len(data), 700):
            client.send(data[start : start + 700])
        answer = client.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert client.ended()


def test_a_body_as_large_as_allowed_is_taken() -> None:
    with running(echo, limits=SMALL) as server:
        client = server.connect()
        client.send(post("/", b"x" * 2_000) + chunked("/", b"x" * 1_000, b"y" * 1_000))
        assert len(client.answer().body) == 2_000
        assert len(client.answer().body) == 2_000


def test_a_body_that_will_be_too_large_is_refused_before_it_is_sent() -> None:
    with running(echo, limits=SMALL) as server:
        client = server.connect()
        client.send(post("/", b"x" * 3_000, "Expect: 100-continue")[:-3_000])
        assert client.answer().status == 413


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_bodies_of_all_clients_together_are_bounded(size: int) -> None:
    limits = ConnectionLimits(body_bytes=size, buffered_bytes=size * 3 // 2, linger_s=0.2)
    with running(echo, limits=limits) as server:
        first, second = server.connect(), server.connect()
        first.send(post("/", b"x" * size)[:-1])
        while server.listener.buffered_bytes < size - 1:
            second.send(get("/"))
            second.answer()
        second.send(post("/", b"y" * size))
        answer = second.answer()
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        first.send(b"x")
        assert first.answer().body == b"x" * size
        third = server.connect()
        third.send(post("/", b"z" * size))
        assert third.answer().body == b"z" * size


def test_one_connection_too_many_is_told_so() -> None:
    with running(echo, limits=ConnectionLimits(connections=2, linger_s=0.2)) as server:
        kept = [server.connect(), server.connect()]
        for client in kept:
            client.send(get("/"))
            assert client.answer().status == 200
        third = server.connect()
        assert third.answer().code == "overloaded"
        assert third.ended()
        kept[0].send(get("/"))
        assert kept[0].answer().status == 200


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"G", "head"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", "head"),
        (post("/", b"body")[:-1], "body"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo", "body"),
    ],
)
def test_a_request_that_stops_half_way_is_refused_and_closed(data: bytes, part: str) -> None:
    with running(echo, limits=ConnectionLimits(head_s=0.1, body_s=0.1, linger_s=0.1)) as server:
        client = server.connect()
        client.send(data)
        answer = client.answer()
        assert (answer.status, answer.code) == (408, "request_too_slow")
        assert part.encode() in answer.body
        assert client.ended()


def test_dripping_bytes_does_not_extend_the_time_of_a_head() -> None:
    with running(echo, limits=ConnectionLimits(head_s=0.2, linger_s=0.1)) as server:
        client = server.connect()
        client.sock.settimeout(0.02)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        for number in range(1_000):
            client.send(b"X%d: y\r\n" % number)
            try:
                said = client.sock.recv(100)
            except TimeoutError:
                continue
            assert said.startswith(b"HTTP/1.1 408 ")
            break
        else:
            pytest.fail("the server waited for the whole drip")


def test_an_idle_connection_is_closed_without_a_word() -> None:
    with running(echo, limits=ConnectionLimits(idle_s=1.0)) as server:
        fresh, used = server.connect(), server.connect()
        used.send(get("/"))
        assert used.answer().status == 200
        assert used.ended()
        assert fresh.ended()


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    large = bytes(32 << 20)
    with running(lambda _: Reply(200, large), limits=ConnectionLimits(write_s=0.1)) as server:
        client = server.connect()
        client.send(get("/"))
        assert server.emptied.wait(20)
        client.close()


def test_a_client_that_reads_slowly_is_waited_for_and_gets_every_answer() -> None:
    piece = bytes(range(256)) * 1_024
    with running(
        lambda request: Reply(200, request.path.encode() + piece),
        limits=ConnectionLimits(write_s=5),
    ) as server:
        client = server.connect()
        client.send(b"".join(get(f"/{number:03}") for number in range(200)))
        for number in range(200):
            assert client.answer().body == f"/{number:03}".encode() + piece


class Shared:
    """The memory that the readers of a listener share."""

    def __init__(self, room: Room | None = None) -> None:
        self.room = room
        self.buffered_bytes = 0
        self.heads = KnownHeads()
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))


def test_a_body_takes_memory_as_it_comes_and_not_as_announced() -> None:
    shared, size = Shared(), 16 << 20
    reader = RequestReader(shared, ConnectionLimits(body_bytes=size, buffered_bytes=2 * size))
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    shared.buffer[: len(head)] = head
    reader.received(len(head))
    left = size
    while left:
        arrived = size - left
        room = len(reader.buffer())
        assert 0 < room <= shared.buffered_bytes - arrived <= max(FIRST_BODY_BYTES, arrived)
        left -= room
        reader.received(room)
    assert len(reader.ready.popleft().body) == shared.buffered_bytes == size


def test_a_body_in_a_room_takes_memory_as_it_comes() -> None:
    size = 4 << 20
    room = memoryview(bytearray(size))
    shared = Shared(lambda size_bytes, _: room[:size_bytes])
    reader = RequestReader(shared, ConnectionLimits(body_bytes=size, buffered_bytes=3 << 20))
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    shared.buffer[: len(head)] = head
    reader.received(len(head))
    assert len(reader.buffer()) == size
    assert shared.buffered_bytes == 0
    reader.received(2 << 20)
    assert shared.buffered_bytes == 2 << 20
    assert reader.refusal is None
    reader.received((1 << 20) + 1)
    assert reader.refusal is not None
    assert reader.refusal.code == "overloaded"
    assert shared.buffered_bytes == 0
