"""Requests on one connection are answered one at a time, in order."""

import asyncio
from collections.abc import Awaitable

import pytest

from edgefleet.http1.message import Reply, Request
from support.http1_wire import chunked, get, post, running


def echo(request: Request) -> Reply:
    said = f"{request.method} {request.path} ?{request.query} ".encode()
    return Reply(200, said + request.body, "text/plain")


def echo_soon_or_later(request: Request) -> Reply | Awaitable[Reply]:
    async def later() -> Reply:
        await asyncio.sleep(0.02)
        return echo(request)

    return later() if request.path.startswith("/later") else echo(request)


def test_pipelined_requests_are_answered_in_order() -> None:
    with running(echo) as server:
        client = server.connect()
        client.send(b"".join(get(f"/{number}") for number in range(100)))
        assert [client.answer().body for _ in range(100)] == [
            f"GET /{number} ? ".encode() for number in range(100)
        ]


def test_a_sync_answer_waits_for_the_async_one_before_it() -> None:
    with running(echo_soon_or_later) as server:
        client = server.connect()
        paths = ["/later/1", "/now/2", "/later/3", "/later/4", "/now/5"]
        client.send(b"".join(get(path) for path in paths))
        assert [client.answer().body for _ in paths] == [f"GET {p} ? ".encode() for p in paths]


def test_a_slow_answer_holds_up_its_own_connection_only() -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    release: list[asyncio.Event] = []

    def handler(request: Request) -> Reply | Awaitable[Reply]:
        async def wait() -> Reply:
            release.append(asyncio.Event())
            loops.append(asyncio.get_running_loop())
            await release[0].wait()
            return Reply(200, b"released")

        return wait() if request.path == "/wait" else Reply(200, b"at once")

    with running(handler) as server:
        waiting, other = server.connect(), server.connect()
        waiting.send(get("/wait"))
        other.send(get("/x"))
        assert other.answer().body == b"at once"
        other.send(get("/x"))
        assert other.answer().body == b"at once"
        loops[0].call_soon_threadsafe(release[0].set)
        assert waiting.answer().body == b"released"


def test_a_connection_is_kept_and_bodies_do_not_leak_into_the_next_request() -> None:
    with running(echo) as server:
        client = server.connect()
        client.send(post("/a", b"first"))
        assert client.answer().body == b"POST /a ?first"[:-5] + b" first"
        client.send(chunked("/b", b"se", b"cond"))
        assert client.answer().body == b"POST /b ? second"
        client.send(get("/c"))
        assert client.answer().body == b"GET /c ? "


def test_a_trailer_does_not_become_a_header() -> None:
    def tell(request: Request) -> Reply:
        return Reply(200, request.headers.get(b"authorization", b"none"))

    with running(tell) as server:
        client = server.connect()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n"
        )
        assert client.answer().body == b"none"


def test_the_path_is_decoded_and_the_query_is_not() -> None:
    with running(echo) as server:
        client = server.connect()
        client.send(get("/a%20b/%C3%A9?x=%20"))
        assert client.answer().body == "GET /a b/é ?x=%20 ".encode()
        client.send(get("http://else.where/abs?q"))
        assert client.answer().body == b"GET /abs ?q "


def test_repeated_headers_are_joined_under_their_lower_case_name() -> None:
    def tell(request: Request) -> Reply:
        return Reply(200, request.headers[b"x-thing"])

    with running(tell) as server:
        client = server.connect()
        client.send(get("/", "X-Thing: one", "x-tHING: two"))
        assert client.answer().body == b"one, two"


def test_a_head_request_gets_the_length_and_no_body() -> None:
    with running(echo) as server:
        client = server.connect()
        client.send(get("/a").replace(b"GET", b"HEAD") + get("/b"))
        head = client.answer(to_head=True)
        assert head.headers["content-length"] == str(len(b"HEAD /a ? "))
        assert client.answer().body == b"GET /b ? "


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_no_length(status: int) -> None:
    with running(lambda _: Reply(status)) as server:
        client = server.connect()
        client.send(get("/"))
        assert "content-length" not in client.answer().headers


@pytest.mark.parametrize("request_", [get("/a", "Connection: close"), b"GET /a HTTP/1.0\r\n\r\n"])
def test_the_connection_ends_where_the_client_asks_for_it(request_: bytes) -> None:
    with running(echo) as server:
        client = server.connect()
        client.send(request_ + get("/never"))
        answer = client.answer()
        assert answer.body == b"GET /a ? "
        assert answer.headers["connection"] == "close"
        assert client.ended()


def test_a_client_that_ends_its_side_still_gets_its_answers() -> None:
    with running(echo_soon_or_later) as server:
        client = server.connect()
        client.send(get("/later") + get("/now"))
        client.sock.shutdown(1)
        assert client.answer().body == b"GET /later ? "
        assert client.answer().body == b"GET /now ? "
        assert client.ended()


def test_100_continue_comes_before_the_body_and_after_earlier_answers() -> None:
    with running(echo_soon_or_later) as server:
        client = server.connect()
        expecting = post("/b", b"body", "Expect: 100-continue")
        client.send(get("/later") + expecting[:-4])
        assert client.answer().body == b"GET /later ? "
        assert client.answer().status == 100
        client.send(b"body")
        assert client.answer().body == b"POST /b ? body"


def test_an_offered_upgrade_is_not_taken_up() -> None:
    with running(echo) as server:
        client = server.connect()
        offer = get("/a", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings")
        client.send(offer + get("/b"))
        assert client.answer().body == b"GET /a ? "
        assert client.answer().body == b"GET /b ? "


def test_a_large_body_comes_back_whole() -> None:
    body = bytes(range(256)) * 4000
    with running(lambda request: Reply(200, request.body)) as server:
        client = server.connect()
        client.send(post("/", body))
        assert client.answer().body == body
