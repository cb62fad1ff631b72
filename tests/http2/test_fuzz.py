"""Frames that are damaged at random never make the connection fail or grow."""

import random

import pytest

from edgefleet.http2 import frames
from edgefleet.http2.header_block import encode_fields
from edgefleet.http2.limits import ConnectionLimits
from edgefleet.http2.stream import BodyReceived, RequestBegun, StreamReset
from support.http2_wire import GET, POST, Wire, frame

HEAD = encode_fields([(b":status", b"200")])
LIMITS = ConnectionLimits(
    head_bytes=1_000,
    concurrent_streams=8,
    frame_bytes=20_000,
    stream_window_bytes=30_000,
    window_bytes=70_000,
    unsent_bytes=50_000,
)


def conversation(draw: random.Random, wire: Wire) -> bytearray:
    """Frames of a client that does most things right."""
    data = bytearray()
    stream = 1
    for _ in range(draw.randrange(1, 12)):
        match draw.randrange(8):
            case 0:
                data += frame(frames.HEADERS, 5, stream, wire.block(GET))
                stream += 2
            case 1 | 2:
                block = wire.block((*POST, ("x", "y" * draw.randrange(20))))
                data += frame(frames.HEADERS, 4, stream, block)
                for _ in range(draw.randrange(4)):
                    data += frame(frames.DATA, 0, stream, bytes(draw.randrange(9_000)))
                data += frame(frames.DATA, 1, stream, b"end")
                stream += 2
            case 3:
                data += frame(frames.PING, draw.randrange(2), 0, bytes(8))
            case 4:
                data += frame(frames.WINDOW_UPDATE, 0, draw.randrange(stream), b"\0\0\x10\0")
            case 5:
                data += frame(frames.SETTINGS, 0, 0, b"\0\x04\0\0" + draw.randbytes(2))
            case 6:
                data += frame(frames.RST_STREAM, 0, max(1, stream - 2), bytes(4))
            case _:
                kind, size = draw.randrange(12), draw.randrange(20)
                data += frame(kind, draw.randrange(256), draw.randrange(9), draw.randbytes(size))
    return data


def answer(draw: random.Random, wire: Wire) -> None:
    """Do what handlers do."""
    for event in wire.events:
        number = event.stream
        if isinstance(event, StreamReset):
            wire.core.release(number)
        elif isinstance(event, BodyReceived):
            wire.core.consume(number, len(event.data))
        elif isinstance(event, RequestBegun) and draw.randrange(2):
            wire.core.respond(number, HEAD)
            wire.core.send(number, bytes(draw.randrange(40_000)), ends=True)


def play(seed: int) -> None:
    draw = random.Random(seed)
    wire = Wire(LIMITS)
    data = conversation(draw, wire)
    for _ in range(draw.randrange(4)):
        if data:
            data[draw.randrange(len(data))] = draw.randrange(256)
    at = 0
    while at < len(data):
        size = draw.choice((1, 5, 9, 100, 5_000))
        wire.send(bytes(data[at : at + size]))
        answer(draw, wire)
        wire.read()  # only whole frames are sent
        at += size
        core = wire.core
        assert len(core.streams) <= LIMITS.concurrent_streams
        unsent = sum(sum(map(len, one.unsent)) for one in core.streams.values())
        assert core.outbox.unsent_bytes == unsent
        untaken = sum(one.untaken_bytes for one in core.streams.values())
        assert 0 <= untaken <= LIMITS.window_bytes
    wire.core.now = 1_000.0
    wire.core.sweep(1.0)
    wire.read()
    assert wire.core.outbox.unsent_bytes == 0


@pytest.mark.parametrize("part", range(4))
def test_damaged_frames_do_not_harm_the_connection(part: int) -> None:
    for seed in range(part * 100, (part + 1) * 100):
        play(seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_more_damaged_frames_do_not_harm_the_connection(part: int) -> None:
    for seed in range(1_000 + part * 1_000, 1_000 + (part + 1) * 1_000):
        play(seed)
