"""A client that exceeds a limit is refused, and what it sends stays bounded in memory and work."""

import struct
from collections.abc import Callable

import pytest

from edgefleet.http2 import frames
from edgefleet.http2.frames import ErrorCode
from edgefleet.http2.header_block import encode_fields
from edgefleet.http2.limits import ConnectionLimits
from support.http2_wire import GET, POST, Wire, frame, seen

HEAD = encode_fields([(b":status", b"200")])
CALM = ErrorCode.ENHANCE_YOUR_CALM
SMALL = ConnectionLimits(
    head_bytes=2_000,
    concurrent_streams=4,
    resets_burst=20,
    resets_per_s=10,
    control_burst=100,
    control_per_s=50,
    control_per_request=2,
    errors=10,
    body_s=5.0,
    write_s=5.0,
)


def test_streams_above_the_limit_are_refused_and_may_be_asked_again() -> None:
    wire = Wire(SMALL)
    for stream in (1, 3, 5, 7, 9):
        wire.request(stream)
    assert wire.resets() == [(9, ErrorCode.REFUSED_STREAM)]
    wire.core.respond(1, HEAD, ends=True)
    assert seen(wire.request(11)) == [("begun", 11, True)]


def test_a_reset_stream_counts_until_its_handler_has_ended() -> None:
    wire = Wire(SMALL)
    for stream in (1, 3, 5, 7):
        wire.request(stream)
        assert seen(wire.reset(stream)) == [("reset", stream, ErrorCode.CANCEL)]
    wire.request(9)
    assert wire.resets() == [(9, ErrorCode.REFUSED_STREAM)]
    wire.core.release(3)
    assert seen(wire.request(11)) == [("begun", 11, True)]


def test_a_client_that_opens_and_resets_streams_is_disconnected() -> None:
    wire = Wire(SMALL)
    for stream in range(1, 2 * SMALL.resets_burst + 1, 2):
        wire.request(stream)
        wire.reset(stream)
        wire.core.release(stream)
    assert wire.end() is None
    wire.request(101)
    wire.reset(101)
    assert (wire.end() or (0, ""))[0] == CALM


def test_the_budget_of_resets_comes_back() -> None:
    wire = Wire(SMALL)
    stream = 1
    for _ in range(10):
        for _ in range(10):
            wire.request(stream)
            wire.reset(stream)
            wire.core.release(stream)
            stream += 2
        wire.core.sweep(1.0)
    assert wire.end() is None


FLOODS: dict[str, Callable[[int], bytes]] = {
    "ping": lambda _: frame(frames.PING, 0, 0, b"12345678"),
    "settings": lambda _: frame(frames.SETTINGS, 0, 0),
    "priority": lambda _: frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\x10"),
    "window update": lambda _: frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"),
    "unknown": lambda _: frame(0x99, 0, 0),
    "empty data": lambda _: frame(frames.DATA, 0, 1),
    "goaway": lambda _: frame(frames.GOAWAY, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_without_requests_is_ended(kind: str) -> None:
    wire = Wire(SMALL)
    wire.request(1, POST, ends=False)
    for number in range(SMALL.control_burst - 10):
        wire.send(FLOODS[kind](number))
    assert wire.end() is None
    for number in range(30):
        wire.send(FLOODS[kind](number))
    assert (wire.end() or (0, ""))[0] == CALM
    assert wire.send(FLOODS[kind](0)) == []
    assert wire.read() == []  # nothing is answered after GOAWAY


def test_window_updates_for_what_was_sent_are_no_flood() -> None:
    wire = Wire(SMALL)
    for stream in range(1, 2001, 2):
        wire.request(stream)
        wire.core.reply(stream, HEAD, b"answer", HEAD)
        wire.read()
        wire.window_update(0, 6)
        wire.window_update(0, 1)
    assert wire.end() is None


def test_a_header_block_that_never_ends_is_ended() -> None:
    wire = Wire(SMALL)
    wire.send(frame(frames.HEADERS, 0, 1, b"\x82"))
    for _ in range(100):
        wire.send(frame(frames.CONTINUATION, 0, 1))
    assert (wire.end() or (0, ""))[0] == CALM


def test_a_header_block_that_is_too_large_is_ended() -> None:
    wire = Wire(SMALL)
    wire.send(frame(frames.HEADERS, 0, 1, b"\x82" * 1_500))
    wire.send(frame(frames.CONTINUATION, 0, 1, b"\x82" * 600))
    assert (wire.end() or (0, ""))[0] == CALM


def test_a_header_list_that_unpacks_to_too_much_is_ended() -> None:
    wire = Wire(SMALL)
    field = b"\x40\x01a" + b"\x7f\x81\x05" + b"x" * 768  # 768 bytes, then one byte each time
    wire.send(frame(frames.HEADERS, 5, 1, b"\x82\x86\x84" + field + b"\xbe" * 100))
    assert (wire.end() or (0, ""))[0] == CALM


def test_a_large_frame_is_not_buffered() -> None:
    wire = Wire(SMALL)
    head = frames.frame_head(SMALL.frame_bytes, frames.HEADERS, 4, 1)
    wire.send(head)
    assert (wire.end() or (0, ""))[0] == CALM


def test_too_many_broken_streams_end_the_connection() -> None:
    wire = Wire(SMALL)
    for stream in range(1, 2 * SMALL.errors + 1, 2):
        wire.request(stream, (*GET, ("Upper", "case")))
    assert wire.end() is None
    wire.request(99, (*GET, ("Upper", "case")))
    assert (wire.end() or (0, ""))[0] == CALM


def test_no_new_stream_begins_while_too_much_of_the_replies_waits() -> None:
    limits = ConnectionLimits(unsent_bytes=1_000)
    wire = Wire(limits, (frames.Setting.INITIAL_WINDOW_SIZE, 0))
    wire.request(1)
    wire.core.respond(1, HEAD)
    wire.core.send(1, b"x" * 2_000, ends=True)
    wire.request(3)
    assert wire.resets() == [(3, ErrorCode.REFUSED_STREAM)]
    wire.window_update(1, 5_000)
    wire.read()
    assert seen(wire.request(5)) == [("begun", 5, True)]


def test_a_body_that_does_not_go_on_is_reset() -> None:
    wire = Wire(SMALL)
    wire.request(1, POST, ends=False)
    wire.core.now = 4.0
    wire.data(1, b"x")
    wire.core.now = 8.0
    assert seen(wire.core.sweep(1.0)) == []
    wire.core.now = 9.5
    assert seen(wire.core.sweep(1.0)) == [("reset", 1, ErrorCode.CANCEL)]
    assert wire.resets() == [(1, ErrorCode.CANCEL)]


def test_a_stream_between_messages_may_be_silent() -> None:
    wire = Wire(SMALL)
    wire.request(1, POST, ends=False)
    wire.core.streams[1].hurried = False
    wire.core.now = 1_000.0
    assert seen(wire.core.sweep(1.0)) == []


def test_a_client_that_does_not_open_its_window_loses_the_stream() -> None:
    wire = Wire(SMALL, (frames.Setting.INITIAL_WINDOW_SIZE, 10))
    wire.request(1)
    wire.core.respond(1, HEAD)
    wire.core.send(1, b"x" * 100, ends=True)
    wire.read()
    wire.core.now = 4.0
    wire.window_update(1, 10)
    wire.read()
    wire.core.now = 8.0
    assert seen(wire.core.sweep(1.0)) == []
    wire.core.now = 9.5
    assert seen(wire.core.sweep(1.0)) == [("reset", 1, ErrorCode.CANCEL)]
    assert wire.core.outbox.unsent_bytes == 0


@pytest.mark.parametrize(
    "fields",
    [
        GET[1:],
        (*GET, (":method", "GET")),
        (("x", "1"), *GET),
        (*GET, (":status", "200")),
        (*GET, ("connection", "close")),
        (*GET, ("te", "gzip")),
        (*GET, ("bad name", "x")),
        (*GET, ("x", "a\nb")),
        (*GET, ("x", " a")),
        (*GET, ("content-length", "1")),
        (*GET, ("content-length", "-1")),
        (*GET[:2], (":path", "")),
    ],
)
def test_a_malformed_request_loses_its_stream_alone(fields: tuple[tuple[str, str], ...]) -> None:
    wire = Wire()
    assert wire.request(1, fields) == []
    assert wire.resets() == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert seen(wire.request(3)) == [("begun", 3, True)]


def test_the_length_of_the_body_must_be_the_announced_one() -> None:
    wire = Wire()
    for stream, body in ((1, b"12"), (3, b"1234")):
        wire.request(stream, (*POST, ("content-length", "3")), ends=False)
        wire.data(stream, body, ends=True)
    assert wire.resets() == [(1, ErrorCode.PROTOCOL_ERROR), (3, ErrorCode.PROTOCOL_ERROR)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.HEADERS, 5, 2, b"\x82\x86\x84"), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.DATA, 0, 5, b"x"), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.RST_STREAM, 0, 5, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.PING, 0, 0, b"1"), ErrorCode.FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
        (frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 5, 1)), ErrorCode.PROTOCOL_ERROR),
        (frame(frames.HEADERS, 5, 1, b"\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (frame(frames.HEADERS, 5, 1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
        (frame(frames.HEADERS, 0xD, 1, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (frames.frame_head(1 << 20, 0, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_a_broken_frame_ends_the_connection(data: bytes, code: ErrorCode) -> None:
    wire = Wire()
    assert wire.send(data) == []
    assert (wire.end() or (0, ""))[0] == code


def test_another_protocol_is_told_so() -> None:
    wire = Wire.__new__(Wire)
    wire.core = type(Wire().core)(ConnectionLimits())
    wire.bodies = Wire().bodies
    wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.end() == (ErrorCode.PROTOCOL_ERROR, "This port accepts HTTP/2 only.")
