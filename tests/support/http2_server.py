"""A server of HTTP/2 whose replies have the bytes of the request, or a greeting."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

from edgefleet.http2.header_block import encode_fields
from edgefleet.http2.limits import ConnectionLimits
from edgefleet.http2.server import Listener, Receiver, ServerStream, listen

HEAD = encode_fields([(b":status", b"200"), (b"content-type", b"text/plain")])
GREETING = b"Hello from the test server.\n"


class Echo:
    """Replies with the body, once the request has ended."""

    def __init__(self, stream: ServerStream) -> None:
        self.stream = stream
        self.body = bytearray()

    def received(self, data: memoryview) -> None:
        self.body += data
        self.stream.consume(len(data))

    def ended(self) -> None:
        self.stream.respond(HEAD)
        self.stream.send(bytes(self.body) or GREETING, ends=True)

    def aborted(self, code: int) -> bool:
        return False

    def sent(self) -> None:
        raise AssertionError("sent() was called without when_sent()")


def echo(stream: ServerStream) -> Receiver:
    return Echo(stream)


def limits(**changes: float) -> ConnectionLimits:
    return replace(ConnectionLimits(), **changes)


@contextlib.contextmanager
def running(handler=echo, **changes: float) -> Iterator[Listener]:
    """The listener of a server in a thread with an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    listener = do(listen(handler, limits=limits(**changes)))
    try:
        yield listener
    finally:
        do(listener.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
