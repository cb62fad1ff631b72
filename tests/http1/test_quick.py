"""Quick answers: heads that differ in their credential alone, and answers in order."""

import asyncio
from collections.abc import Awaitable

import pytest

from edgefleet.http1.credential_heads import CredentialHeads
from edgefleet.http1.known_heads import Head
from edgefleet.http1.message import Reply, Request
from support.http1_fuzz import find_split_that_differs
from support.http1_wire import post, running


def sent(token: str, body: bytes = b"{}", path: str = "/c", *lines: str) -> bytes:
    return post(path, body, f"Authorization: Bearer {token}", *lines)


def head_of(data: bytes) -> bytes:
    return data[: data.find(b"\r\n\r\n") + 4]


def learnt(token: str = "first") -> CredentialHeads:
    heads = CredentialHeads()
    text = head_of(sent(token))
    headers = {b"host": b"a", b"content-length": b"2", b"authorization": b"Bearer first"}
    heads.add(text, Head("POST", "/c", "", headers, 2))
    return heads


def test_a_head_is_known_for_every_credential() -> None:
    heads = learnt()
    request = heads.whole_request(sent("other.2"), "10.0.0.1")
    assert request is not None
    assert request.headers[b"authorization"] == b"Bearer other.2"
    assert (request.path, request.raw_body, request.peer) == ("/c", b"{}", "10.0.0.1")
    text, head = heads.find(memoryview(sent("third")))
    assert (text, head and head.headers[b"authorization"]) == (
        head_of(sent("third")),
        b"Bearer third",
    )
    found = heads.split(sent("fourth"))
    assert found is not None
    assert found[1:] == (b"fourth", b"{}")
    assert b"authorization" not in found[0].headers


@pytest.mark.parametrize(
    "data",
    [
        sent("a b"),
        sent("a\nX: y"),
        sent("a\0"),
        sent(""),
        sent("a" * 600),
        sent("a", b"{} "),
        sent("a", b"{}", "/d"),
        sent("a", b"{}", "/c", "X: y"),
        sent("a") + b"GET",
        sent("a")[:-1],
        post("/c", b"{}"),
        post("/c", b"{}", "authorization: Bearer a"),
        sent("a", b"{}", "/c", "Authorization: Bearer b"),
    ],
)
def test_no_other_head_is_known(data: bytes) -> None:
    assert learnt().whole_request(data, "") is None


def test_the_cut_does_not_join_what_the_parser_never_saw() -> None:
    """Bytes that equal the known head once a middle part is gone."""
    heads, data = learnt(), sent("first")
    at = data.find(b"Bearer ")
    for hidden in (b"\r\n\r\n", b"\r\nX: y\r\n", b"\r\nAuthorization: Bearer z\r\n"):
        for place in (at - 3, at, at + 7):
            assert heads.split(data[:place] + hidden + data[place:]) is None


def test_a_head_with_another_credential_in_its_headers_is_not_learnt() -> None:
    assert learnt("second").whole_request(sent("second"), "") is None


def test_every_cut_gives_the_same_answers_with_heads_of_credentials() -> None:
    assert find_split_that_differs(heads=CredentialHeads()) is None


class Answering:
    """Answers whole requests with the credential ``quick``, and fails for ``broken``."""

    def __init__(self) -> None:
        self.heads = CredentialHeads()

    def answer(self, data: bytes, date: bytes, /) -> bytes | None:
        found = self.heads.split(data)
        if found is None:
            return None
        if found[1] == b"broken":
            raise ValueError
        if found[1] != b"quick":
            return None
        return b"HTTP/1.1 200 OK\r\n" + date + b"content-length: 5\r\n\r\nquick"


def usual(request: Request) -> Reply | Awaitable[Reply]:
    async def later() -> Reply:
        await asyncio.sleep(0.05)
        return Reply(200, b"late")

    return later() if request.body == b"ZZ" else Reply(200, b"usual")


def test_quick_answers_and_others_keep_their_order() -> None:
    with running(usual, quick=Answering()) as server:
        client = server.connect()
        client.send(sent("quick"))
        assert client.answer().body == b"usual"  # its head was not known
        client.send(sent("quick"))
        got = client.answer()
        assert (got.body, "date" in got.headers) == (b"quick", True)
        client.send(sent("late", b"ZZ"))
        client.send(sent("quick"))
        client.send(sent("quick") + sent("slow"))
        assert client.answer().body == b"late"
        assert {client.answer().body for _ in range(3)} <= {b"usual", b"quick"}
        client.send(sent("quick"))
        assert client.answer().body == b"quick"
        client.send(sent("quick")[:60])
        client.send(sent("quick")[60:])
        assert client.answer().body in (b"usual", b"quick")  # one or two reads


def test_a_quick_answer_that_fails_is_left_to_the_handler() -> None:
    with running(usual, quick=Answering()) as server:
        client = server.connect()
        for token in ("broken", "broken"):
            client.send(sent(token))
            assert client.answer().body == b"usual"
        assert [crash["message"] for crash in server.crashes] == ["A quick answer failed"]
        server.crashes.clear()


def test_a_listener_that_drains_says_so_to_a_quick_client() -> None:
    with running(usual, quick=Answering()) as server:
        client = server.connect()
        for _ in range(2):
            client.send(sent("quick"))
            client.answer()
        server.listener.draining = True
        client.send(sent("quick"))
        got = client.answer()
        assert (got.body, got.headers["connection"]) == (b"usual", "close")
