"""Bytes in any pieces give the same answers. Garbage gives a typed refusal."""

import random
from collections.abc import Mapping
from itertools import cycle

import msgspec
import pytest

from edgefleet.http1.connection import Connection
from edgefleet.http1.known_heads import Head, KnownHeads
from edgefleet.http1.message import Reply, Request
from edgefleet.http1.reader import RequestReader
from support.http1_fuzz import (
    CONVERSATIONS,
    converse,
    find_split_that_differs,
    mutated,
    quiet_loop,
    statuses,
    vanish,
)


def test_every_cut_of_a_conversation_gives_the_same_answers() -> None:
    assert find_split_that_differs() is None


def test_every_cut_gives_the_same_answers_to_a_client_that_reads_slowly() -> None:
    assert find_split_that_differs(room=150) is None


class ReadsEveryBodyPastTheParser(RequestReader):
    direct_bytes = 2


class TakesEveryBodyDirectly(Connection):
    reader_class = ReadsEveryBodyPastTheParser


@pytest.mark.parametrize("room", [150, 1 << 20])
def test_a_body_read_past_the_parser_is_the_same_body(room: int) -> None:
    assert find_split_that_differs(TakesEveryBodyDirectly, room=room) is None


def test_a_head_that_is_known_means_the_same() -> None:
    assert find_split_that_differs(heads=KnownHeads()) is None


class TakesTheWholeHeadForItsFirstLine(KnownHeads):
    def find(self, data: memoryview) -> tuple[bytes, Head | None]:
        text, _ = super().find(data)
        line = text.split(b"\r\n")[0]
        known = (self._known[one] for one in self._known if line and one.startswith(line))
        return text, next(known, None)


class ForgetsTheSizeOfTheBody(KnownHeads):
    def add(self, text: bytes, head: Head) -> None:
        super().add(text, msgspec.structs.replace(head, body_bytes=0))


class RemembersChunkedRequests(KnownHeads):
    def add(self, text: bytes, head: Head) -> None:
        self._known[text] = head


@pytest.mark.parametrize(
    "planted", [ForgetsTheSizeOfTheBody, RemembersChunkedRequests, TakesTheWholeHeadForItsFirstLine]
)
def test_the_conversations_find_heads_that_mean_something_else(planted: type[KnownHeads]) -> None:
    assert find_split_that_differs(heads=planted()) is not None


@pytest.mark.parametrize("seed", range(4))
def test_damaged_conversations_get_the_same_answers_from_known_heads(seed: int) -> None:
    draw = random.Random(seed)
    heads = KnownHeads()
    with quiet_loop() as (loop, crashes):
        for _ in range(300):
            whole = draw.choice(CONVERSATIONS)
            converse(loop, [whole], heads=heads)
            data = mutated(draw, whole)
            edge = draw.randrange(len(data) + 1)
            got = converse(loop, [data[:edge], data[edge:]], heads=heads)
            assert got == converse(loop, [data]), data
        assert crashes == []


def test_known_heads_are_bounded_and_short() -> None:
    heads = KnownHeads()
    head = Head("GET", "/", "", {}, 0)
    texts = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(65)]
    for text in texts:
        heads.add(text, head)
    assert heads.find(memoryview(texts[0])) == (texts[0], None)
    assert heads.find(memoryview(texts[1])) == (texts[1], head)
    long = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % (b"a" * 1_024)
    assert heads.find(memoryview(long)) == (b"", None)


def every_second_room(size_bytes: int, headers: Mapping[bytes, bytes]) -> memoryview | None:
    assert int(headers[b"content-length"]) == size_bytes
    return next(_ROOMS)(size_bytes)


_ROOMS = cycle((lambda size_bytes: memoryview(bytearray(size_bytes)), lambda _: None))


def test_a_body_read_into_the_room_of_the_listener_is_the_same_body() -> None:
    found = find_split_that_differs(TakesEveryBodyDirectly, body_room=every_second_room)
    assert found is None


class LosesTheFirstBytesOfADirectBody(ReadsEveryBodyPastTheParser):
    def _go_direct(self, size_bytes: int) -> None:
        self._body = [bytes(len(piece)) for piece in self._body]
        super()._go_direct(size_bytes)


class ForgetsTheFirstHalfOfThePath(RequestReader):
    def on_url(self, url: bytes) -> None:
        self._url = url
        self._count_head(len(url))


class ForgetsWhatBelongsToTheNextRequest(RequestReader):
    def on_message_begin(self) -> None:
        kept = self._headers
        super().on_message_begin()
        self._headers = kept


class LosesTheCountOfBodies(RequestReader):
    def account(self, size_bytes: int) -> None:
        if size_bytes > 0:
            super().account(size_bytes)


class AnswersOutOfTurn(Connection):
    def _work(self) -> None:
        self._running = False
        super()._work()


def reading_with(planted: type[RequestReader]) -> type[Connection]:
    return type("Planted", (Connection,), {"reader_class": planted})


@pytest.mark.parametrize(
    "planted",
    [
        LosesTheFirstBytesOfADirectBody,
        ForgetsTheFirstHalfOfThePath,
        ForgetsWhatBelongsToTheNextRequest,
    ],
)
def test_the_cuts_find_a_reader_that_mixes_requests_up(planted: type[RequestReader]) -> None:
    assert find_split_that_differs(reading_with(planted)) is not None


def test_the_cuts_find_a_reader_that_loses_bytes_of_a_body_in_a_room() -> None:
    planted = reading_with(LosesTheFirstBytesOfADirectBody)
    found = find_split_that_differs(
        planted, body_room=lambda size_bytes, _: memoryview(bytearray(size_bytes))
    )
    assert found is not None


def test_the_cuts_find_answers_that_are_out_of_turn() -> None:
    assert find_split_that_differs(AnswersOutOfTurn) is not None


def test_the_harness_finds_bodies_that_stay_counted() -> None:
    with pytest.raises(AssertionError, match="still counted"):
        find_split_that_differs(reading_with(LosesTheCountOfBodies))


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_are_refused_and_never_answered_with_success(seed: int) -> None:
    draw = random.Random(seed)
    with quiet_loop() as (loop, crashes):
        for _ in range(500):
            data = draw.randbytes(draw.randint(1, 300))
            assert statuses(converse(loop, [data])) in ([], [400])
        assert crashes == []


@pytest.mark.parametrize("seed", range(4))
def test_damaged_conversations_get_whole_answers_and_no_internal_error(seed: int) -> None:
    draw = random.Random(seed)
    allowed = {200, 400, 404, 413, 431}
    with quiet_loop() as (loop, crashes):
        for _ in range(500):
            data = mutated(draw, draw.choice(CONVERSATIONS))
            edge = draw.randrange(len(data) + 1)
            got = converse(
                loop,
                [data[:edge], data[edge:]],
                connection_class=draw.choice([Connection, TakesEveryBodyDirectly]),
                room=draw.choice([100, 1 << 20]),
            )
            assert set(statuses(got)) <= allowed, data
        assert crashes == []


class WritesToAClientThatHasGone(Connection):
    def _reply(self, request: Request, reply: Reply) -> None:
        self._out().write(reply.body)


def test_a_client_may_vanish_after_any_byte() -> None:
    with quiet_loop() as (loop, crashes):
        for data in CONVERSATIONS:
            for end in range(1, len(data) + 1):
                for connection_class in (Connection, TakesEveryBodyDirectly):
                    vanish(loop, data[:end], connection_class=connection_class)
                vanish(loop, data[:end], room=100)
        assert crashes == []


def test_the_harness_finds_answers_to_a_client_that_has_gone() -> None:
    with quiet_loop() as (loop, crashes):
        vanish(loop, CONVERSATIONS[2], connection_class=WritesToAClientThatHasGone)
        assert crashes
