"""Ambiguous requests are refused, and a failed handler gives an error answer."""

import pytest

from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.http1.message import Reply, Request
from support.http1_wire import get, post, running

_POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
AMBIGUOUS = {
    "length and chunks": _POST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": _POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": _POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": _POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a signed length": _POST + b"Content-Length: +3\r\n\r\nabc",
    "a list of lengths": _POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "an empty length": _POST + b"Content-Length:\r\n\r\n",
    "an endless length": _POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "an encoding that is not chunked last": _POST
    + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a chunk size that is no number": _POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "a zero byte": b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "another version": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "an upgrade with a body": _POST
    + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a path that is no text": b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown expectation": _POST + b"Expect: tea\r\nContent-Length: 1\r\n\r\nx",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_requests_are_refused_and_nothing_behind_them_is_read(name: str) -> None:
    seen: list[str] = []

    def handler(request: Request) -> Reply:
        seen.append(request.path)
        return Reply(200)

    with running(handler) as server:
        client = server.connect()
        client.send(AMBIGUOUS[name] + get("/smuggled"))
        answer = client.answer()
        assert (answer.status, answer.code) == (400, "request_malformed")
        assert client.ended()
    assert seen == []


def test_requests_before_a_malformed_one_are_answered_first() -> None:
    with running(lambda request: Reply(200, request.path.encode())) as server:
        client = server.connect()
        client.send(get("/1") + get("/2") + b"garbage\r\n\r\n")
        assert client.answer().body == b"/1"
        assert client.answer().body == b"/2"
        assert client.answer().code == "request_malformed"
        assert client.ended()


def test_a_typed_error_becomes_its_problem_and_the_connection_is_kept() -> None:
    def handler(request: Request) -> Reply:
        if request.path == "/bad":
            raise OperatorError("not_found", "There is none.", field="name")
        return Reply(200)

    with running(handler) as server:
        client = server.connect()
        client.send(get("/bad") + get("/good"))
        answer = client.answer()
        assert (answer.status, answer.code) == (404, "not_found")
        assert b'"field":"name"' in answer.body
        assert client.answer().status == 200


@pytest.mark.parametrize("late", [False, True])
def test_a_failing_handler_is_an_internal_error_and_tells_the_client_nothing(late: bool) -> None:
    def handler(request: Request) -> Reply:
        raise RuntimeError("secret")

    async def later(request: Request) -> Reply:
        raise RuntimeError("secret")

    with running(later if late else handler) as server:
        client = server.connect()
        client.send(post("/", b"x") + post("/", b"y"))
        for _ in range(2):
            answer = client.answer()
            assert (answer.status, answer.code) == (500, "internal")
            assert b"secret" not in answer.body
        assert "secret" in str(server.crashes[0]["exception"])


def test_a_handler_cannot_break_the_message_with_a_line_break() -> None:
    with running(lambda _: Reply(200, headers=(("X", "a\r\nSet-Cookie: b"),))) as server:
        client = server.connect()
        client.send(get("/"))
        answer = client.answer()
        assert (answer.status, answer.code) == (500, "internal")
        assert "set-cookie" not in answer.headers


def test_errors_are_rendered_as_the_listener_says() -> None:
    def render(error: EdgefleetError) -> Reply:
        return Reply(error.status, f"mine: {error.code}".encode(), "text/plain")

    with running(lambda _: Reply(200), render_error=render) as server:
        client = server.connect()
        client.send(b"garbage\r\n\r\n")
        assert client.answer().body == b"mine: request_malformed"
