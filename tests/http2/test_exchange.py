"""Requests and replies of one connection, and flow control in both directions."""

from dataclasses import replace

import pytest

from edgefleet.http2 import frames
from edgefleet.http2.frames import ErrorCode, Setting
from edgefleet.http2.header_block import encode_fields
from edgefleet.http2.limits import ConnectionLimits
from edgefleet.http2.stream import RequestBegun
from support.http2_wire import GET, POST, Wire, frame, seen

HEAD = encode_fields([(b":status", b"200")])
TRAILERS = encode_fields([(b"grpc-status", b"0")])
LIMITS = ConnectionLimits(stream_window_bytes=100_000, window_bytes=200_000)


def data_of(wire: Wire, stream: int) -> list[int]:
    """The sizes of the DATA frames that the server sends now on a stream."""
    return [len(one.payload) for one in wire.read() if one.kind == 0 and one.stream == stream]


def test_a_request_is_answered_with_head_data_and_trailers() -> None:
    wire = Wire()
    (event,) = wire.request(1)
    assert isinstance(event, RequestBegun)
    assert (event.headers[b":path"], event.ended) == (b"/", True)
    wire.core.reply(1, HEAD, b"abc", TRAILERS)
    head, data, trailers = wire.read()
    assert wire.fields(head) == {":status": "200"}
    assert (data.payload, data.flags) == (b"abc", 0)
    assert wire.fields(trailers) == {"grpc-status": "0"}
    assert trailers.flags == frames.END_HEADERS | frames.END_STREAM
    assert not wire.core.streams


def test_the_first_settings_are_those_of_the_limits() -> None:
    settings = dict(frames.read_settings(Wire(LIMITS).first[0].payload))
    assert settings[Setting.INITIAL_WINDOW_SIZE] == 100_000
    assert settings[Setting.MAX_CONCURRENT_STREAMS] == LIMITS.concurrent_streams


def test_a_reply_waits_for_the_window_of_its_stream() -> None:
    wire = Wire(None, (Setting.INITIAL_WINDOW_SIZE, 10))
    wire.request(1)
    wire.core.reply(1, HEAD, b"x" * 25, TRAILERS)
    assert data_of(wire, 1) == [10]
    wire.window_update(1, 10)
    assert data_of(wire, 1) == [10]
    wire.window_update(1, 100)
    rest = wire.read()
    assert [(one.kind, one.flags) for one in rest] == [(0, 0), (1, 5)]
    assert len(rest[0].payload) == 5


def test_a_reply_waits_for_the_window_of_the_connection() -> None:
    wire = Wire(None, (Setting.INITIAL_WINDOW_SIZE, 1 << 20))
    wire.request(1)
    wire.request(3)
    wire.core.respond(1, HEAD)
    wire.core.send(1, b"x" * 100_000, ends=True)
    assert sum(data_of(wire, 1)) == frames.FIRST_WINDOW
    wire.core.reply(3, HEAD, b"y", TRAILERS)
    assert data_of(wire, 3) == []
    wire.window_update(0, 100_000)
    sent = wire.read()
    assert sum(len(one.payload) for one in sent if one.kind == 0 and one.stream == 1) == 34_465
    assert [one.kind for one in sent if one.stream == 3] == [0, 1]


def test_a_smaller_initial_window_makes_the_window_of_a_stream_negative() -> None:
    wire = Wire(None, (Setting.INITIAL_WINDOW_SIZE, 100))
    wire.request(1)
    wire.core.respond(1, HEAD)
    wire.core.send(1, b"x" * 250, ends=True)
    assert data_of(wire, 1) == [100]
    wire.send(frame(frames.SETTINGS, 0, 0, b"\0\x04\0\0\0\x28"))  # 40: the window is -60
    wire.window_update(1, 60)
    assert data_of(wire, 1) == []
    wire.window_update(1, 1)
    assert data_of(wire, 1) == [1]


def test_a_small_reply_does_not_wait_for_a_large_one() -> None:
    wire = Wire(None, (Setting.INITIAL_WINDOW_SIZE, 1 << 24))
    wire.window_update(0, 1 << 24)
    wire.request(1)
    wire.request(3)
    wire.core.respond(1, HEAD)
    wire.core.send(1, b"x" * (1 << 20), ends=True)
    wire.core.respond(3, HEAD)
    wire.core.send(3, b"y", ends=True)
    order = [one.stream for one in wire.read() if one.kind == 0]
    assert order.index(3) == 1
    assert order.count(1) == (1 << 20) // frames.SMALLEST_FRAME_BYTES


def test_a_body_that_is_taken_opens_the_windows_again() -> None:
    wire = Wire(LIMITS)
    wire.request(1, POST, ends=False)
    for _ in range(10):
        wire.data(1, b"x" * 16_384)
        wire.core.consume(1, 16_384)
    assert wire.bodies[1] == b"x" * 163_840
    grants = [
        (one.stream, int.from_bytes(one.payload, "big")) for one in wire.read() if one.kind == 8
    ]
    assert sum(count for stream, count in grants if stream == 1) >= 163_840 - 50_000
    assert sum(count for stream, count in grants if stream == 0) >= 163_840 - 100_000


@pytest.mark.parametrize(
    ("sizes", "stream_code"),
    [((16_384,) * 7, ErrorCode.FLOW_CONTROL_ERROR), ((16_384,) * 6, None)],
)
def test_a_client_that_ignores_the_window_of_a_stream_loses_the_stream(
    sizes: tuple[int, ...], stream_code: ErrorCode | None
) -> None:
    wire = Wire(LIMITS)
    wire.request(1, POST, ends=False)
    for size in sizes:
        wire.data(1, b"x" * size)
    assert wire.resets() == ([(1, stream_code)] if stream_code else [])


def test_a_client_that_ignores_the_window_of_the_connection_is_disconnected() -> None:
    wire = Wire(LIMITS)
    for stream in (1, 3, 5):
        wire.request(stream, POST, ends=False)
        for _ in range(5):
            wire.data(stream, b"x" * 16_384)
    code, _ = wire.end() or (None, None)
    assert code == ErrorCode.FLOW_CONTROL_ERROR


def test_a_reset_stream_gives_the_window_of_the_connection_back() -> None:
    wire = Wire(LIMITS)
    for stream in range(1, 201, 2):  # 100 streams of 64 kB: 32 times the window
        wire.request(stream, POST, ends=False)
        for _ in range(4):
            wire.data(stream, b"x" * 16_384)
        wire.reset(stream)
        wire.core.release(stream)
    assert wire.end() is None


def test_data_of_a_stream_that_was_reset_here_is_ignored_but_counted() -> None:
    wire = Wire(LIMITS)
    wire.request(1, POST, ends=False)
    wire.core.reset(1, ErrorCode.CANCEL)
    for _ in range(60):
        assert wire.data(1, b"x" * 16_384) == []
    assert wire.end() is None


def test_a_reply_before_the_end_of_the_request_asks_for_no_more_of_it() -> None:
    wire = Wire()
    wire.request(1, POST, ends=False)
    wire.core.respond(1, HEAD, ends=True)
    assert [(one.kind, one.stream) for one in wire.read()] == [(1, 1), (3, 1)]
    assert wire.data(1, b"late", ends=True) == []
    assert wire.resets() == []


def test_padding_is_no_part_of_the_body_and_counts_for_the_window() -> None:
    wire = Wire(LIMITS)
    wire.request(1, POST, ends=False)
    events = wire.send(frame(frames.DATA, frames.PADDED | 1, 1, b"\x05body\0\0\0\0\0"))
    assert seen(events) == [("body", 1, b"body", True)]
    assert wire.core.streams[1].untaken_bytes == 4


def test_trailers_of_a_request_end_it() -> None:
    wire = Wire()
    wire.request(1, POST, ends=False)
    assert seen(wire.request(1, (("x-sum", "1"),))) == [("body", 1, b"", True)]


def test_a_repeated_header_block_means_what_the_table_says_now() -> None:
    """The bytes are the same; an insertion between them has moved what they refer to."""
    wire = Wire()
    path = b"\x83\x86\x84"  # POST, http, /
    first = path + b"\x40\x01a\x01x"
    wire.send(frame(frames.HEADERS, 5, 1, first))
    repeated = path + b"\xbe"
    (one,) = wire.send(frame(frames.HEADERS, 5, 3, repeated))
    assert isinstance(one, RequestBegun)
    assert one.headers[b"a"] == b"x"
    wire.send(frame(frames.HEADERS, 5, 5, path + b"\x40\x01b\x01y"))
    (two,) = wire.send(frame(frames.HEADERS, 5, 7, repeated))
    assert isinstance(two, RequestBegun)
    assert (two.headers.get(b"a"), two.headers[b"b"]) == (None, b"y")


def test_a_large_header_block_of_a_reply_is_continued() -> None:
    wire = Wire()
    wire.request(1)
    block = encode_fields([(b":status", b"200"), *[(b"x%d" % n, b"v" * 900) for n in range(40)]])
    wire.core.respond(1, block, ends=True)
    sent = wire.read()
    assert [(one.kind, one.flags) for one in sent] == [(1, 1), (9, 0), (9, 4)]
    joined = sent[0]._replace(payload=b"".join(one.payload for one in sent))
    assert wire.fields(joined)["x39"] == "v" * 900


def test_after_goaway_open_streams_are_answered_and_new_ones_are_not() -> None:
    wire = Wire(LIMITS)
    wire.request(1, POST, ends=False)
    wire.core.shut_down()
    (goaway,) = wire.read()
    assert goaway.payload[:8] == b"\0\0\0\x01\0\0\0\0"
    assert wire.request(3, POST, ends=False) == []
    assert wire.data(3, b"x" * 1_000, ends=True) == []
    assert seen(wire.data(1, b"last", ends=True)) == [("body", 1, b"last", True)]
    wire.core.reply(1, HEAD, b"ok", TRAILERS)
    assert [one.stream for one in wire.read()] == [1, 1, 1]


@pytest.mark.parametrize("step", [1, 2, 7, 8, 9, 10, 100])
def test_every_cut_of_the_bytes_gives_the_same_requests(step: int) -> None:
    def conversation(wire: Wire) -> bytes:
        head = frame(frames.HEADERS, 0, 1, wire.block(POST)[:3])
        # The block goes on in a CONTINUATION: encoded once more, so cut the same bytes.
        block = Wire().block(POST)
        head = frame(frames.HEADERS, 0, 1, block[:3]) + frame(9, 4, 1, block[3:])
        body = frame(0, 0, 1, b"first") + frame(0, 8, 1, b"\x02second\0\0") + frame(0, 1, 1, b"")
        unknown = frame(0x77, 0xFF, 0, b"what is this")
        return head + frame(6, 0, 0, b"8 bytes.") + body + unknown + frame(1, 5, 3, block)

    def ask(size: int) -> tuple[list[tuple[object, ...]], bytes, list[tuple[int, int]]]:
        wire = Wire()
        data = conversation(wire)
        events: list[tuple[object, ...]] = []
        for at in range(0, len(data), size):
            events += [one for one in seen(wire.send(data[at : at + size])) if one[0] != "body"]
        return events, wire.bodies[1], [(one.kind, one.stream) for one in wire.read()]

    whole = ask(10_000)
    assert whole[1] == b"firstsecond"
    assert whole[0] == [("begun", 1, False), ("begun", 3, True)]
    assert ask(step) == whole


def test_fields_that_repeat_are_joined() -> None:
    wire = Wire()
    (event,) = wire.request(1, (*GET, ("x", "1"), ("x", "2"), ("cookie", "a=1"), ("cookie", "b")))
    assert isinstance(event, RequestBegun)
    assert (event.headers[b"x"], event.headers[b"cookie"]) == (b"1, 2", b"a=1; b")


def test_what_comes_after_the_end_of_a_stream_does_nothing() -> None:
    wire = Wire(replace(LIMITS))
    wire.request(1)
    wire.core.reply(1, HEAD, b"", TRAILERS)
    wire.read()
    wire.core.reply(1, HEAD, b"again", TRAILERS)
    wire.core.send(1, b"more", ends=True)
    wire.core.consume(1, 10)
    wire.core.reset(1, ErrorCode.CANCEL)
    assert wire.read() == []
