"""The listener: its connections, deadlines and graceful end, over real sockets."""

import asyncio
import socket
import threading
from typing import ClassVar

import pytest

from edgefleet.http2 import frames
from edgefleet.http2.frames import ErrorCode
from edgefleet.http2.header_block import encode_fields
from edgefleet.http2.server import ServerStream
from support.http2_client import GUARD_S, FrameClient
from support.http2_server import GREETING, HEAD, Echo, running
from support.http2_wire import POST, frame


def test_a_request_is_answered_and_the_connection_stays() -> None:
    with running() as listener:
        client = FrameClient(listener.port)
        for stream in (1, 3):
            client.request(stream)
            assert client.until(frames.DATA).payload == GREETING


def test_a_large_body_comes_back() -> None:
    with running() as listener:
        client = FrameClient(listener.port)
        body = bytes(range(256)) * 2_000
        client.send(frame(frames.SETTINGS, 0, 0, b"\0\x04\x7f\xff\xff\xff"))
        client.send(frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\x00\x00\x00"))
        client.request(1, POST, ends=False)
        for at in range(0, len(body), 16_000):
            client.send(frame(frames.DATA, 0, 1, body[at : at + 16_000]))
        client.send(frame(frames.DATA, 1, 1))
        got = b""
        while len(got) < len(body):
            got += client.until(frames.DATA).payload
        assert got == body


def test_a_connection_above_the_limit_is_told_so() -> None:
    with running(connections=1) as listener:
        first = FrameClient(listener.port)
        first.request(1)
        first.until(frames.DATA)
        goaway = FrameClient(listener.port).until(frames.GOAWAY)
        assert goaway.payload[4:8] == b"\0\0\0\x0b"
        first.request(3)
        assert first.until(frames.DATA).payload == GREETING


@pytest.mark.parametrize("sent", [b"", frames.PREFACE[:5]])
def test_a_client_without_a_preface_is_disconnected(sent: bytes) -> None:
    with running(head_s=0.1, body_s=0.1, idle_s=0.1, write_s=0.1) as listener:
        slow = socket.create_connection(("127.0.0.1", listener.port), timeout=GUARD_S)
        slow.sendall(sent)
        while slow.recv(1 << 16):
            pass


def test_a_header_block_that_does_not_go_on_is_disconnected() -> None:
    with running(head_s=0.1) as listener:
        client = FrameClient(listener.port)
        client.send(frame(frames.HEADERS, 0, 1, b"\x82"))
        assert client.until(frames.GOAWAY).payload[7] == ErrorCode.PROTOCOL_ERROR
        assert client.ended()


def test_an_idle_connection_is_closed_with_goaway() -> None:
    with running(idle_s=0.1) as listener:
        client = FrameClient(listener.port)
        assert client.until(frames.GOAWAY).payload[4:8] == bytes(4)
        assert client.ended()


class Fails(Echo):
    def ended(self) -> None:
        raise ValueError("a defect")


def test_a_handler_that_fails_loses_its_stream_alone() -> None:
    handlers = iter((Fails, Echo))

    def handler(stream: ServerStream) -> Echo:
        return next(handlers)(stream)

    with running(handler) as listener:
        reported = []
        listener.loop.call_soon_threadsafe(
            listener.loop.set_exception_handler, lambda _, context: reported.append(context)
        )
        client = FrameClient(listener.port)
        client.request(1)
        reset = client.until(frames.RST_STREAM)
        assert (reset.stream, reset.payload[3]) == (1, ErrorCode.INTERNAL_ERROR)
        client.request(3)
        assert client.until(frames.DATA).payload == GREETING
        assert isinstance(reported[0]["exception"], ValueError)


class Waits(Echo):
    """Replies when the test allows it."""

    began = threading.Event()
    go = threading.Event()
    aborts: ClassVar[list[int]] = []

    def ended(self) -> None:
        Waits.began.set()
        asyncio.get_running_loop().run_in_executor(None, Waits.go.wait).add_done_callback(
            lambda _: self.stream.reply(HEAD, b"late", encode_fields([(b"x", b"y")]))
        )

    def aborted(self, code: int) -> bool:
        Waits.aborts.append(code)
        return False


@pytest.fixture
def waits() -> type[Waits]:
    Waits.began.clear()
    Waits.go.clear()
    Waits.aborts.clear()
    return Waits


def test_close_answers_the_open_streams_first(waits: type[Waits]) -> None:
    with running(waits) as listener:
        client = FrameClient(listener.port)
        client.request(1)
        assert waits.began.wait(GUARD_S)
        closing = asyncio.run_coroutine_threadsafe(listener.close(), listener.loop)
        assert client.until(frames.GOAWAY).payload[:4] == b"\0\0\0\x01"
        waits.go.set()
        assert client.until(frames.DATA).payload == b"late"
        assert client.ended()
        closing.result(GUARD_S)


def test_a_handler_hears_that_its_client_has_gone(waits: type[Waits]) -> None:
    with running(waits, drain_s=0.1) as listener:
        client = FrameClient(listener.port)
        client.request(1)
        assert waits.began.wait(GUARD_S)
        client.send(frame(frames.RST_STREAM, 0, 1, bytes(4)) + frame(frames.PING, 0, 0, bytes(8)))
        client.until(frames.PING)
        assert waits.aborts == [ErrorCode.CANCEL]
        waits.go.set()


def test_a_client_that_reads_nothing_is_disconnected() -> None:
    def flood(stream: ServerStream) -> Echo:
        handler = Echo(stream)
        handler.body += b"x" * (4 << 20)
        return handler

    with running(flood, write_s=0.2, write_buffer_bytes=1 << 16) as listener:
        client = FrameClient(listener.port)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(frame(frames.SETTINGS, 0, 0, b"\0\x04\x7f\xff\xff\xff"))
        client.send(frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\x00\x00\x00"))
        client.request(1)
        gone = threading.Event()
        inner = listener.closed

        def closed(connection) -> None:
            inner(connection)
            gone.set()

        listener.closed = closed
        assert gone.wait(GUARD_S)
