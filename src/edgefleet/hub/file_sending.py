"""Sends files over sockets by the system's ``sendfile``: no byte of a file is in this process.

A client that reads slowly costs two descriptors and no memory. Disk and socket are used in threads
of their own, in turns of at most ``SEND_BYTES``, so check-ins and other clients go on meanwhile.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from edgefleet.hub.limits import OPERATOR_WRITE_S, SEND_BYTES, SENDING_THREADS

_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, for 0 s


class FileSender:
    """Sends any number of files at the same time, with a few threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(SENDING_THREADS, "send")

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def send(self, transport: asyncio.Transport, path: Path, start: int, stop: int) -> None:
        """Send the bytes from ``start`` to ``stop`` of a file, after all that was written before.

        The transport must be a plain socket. Raises ConnectionError after ``OPERATOR_WRITE_S``
        seconds in which the client took nothing, and aborts the connection; OSError.
        """
        await _written(transport)
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, source)
            out = os.dup(transport.get_extra_info("socket").fileno())
            stack.callback(os.close, out)
            at = start
            while at < stop:
                turn = loop.run_in_executor(
                    self._threads, _send_some, out, source, at, min(SEND_BYTES, stop - at)
                )
                try:
                    sent = await asyncio.shield(turn)
                except asyncio.CancelledError:
                    turn.add_done_callback(partial(_close, stack.pop_all()))
                    raise
                if sent:
                    at += sent
                elif transport.is_closing() or not await _writable(loop, out):
                    reset(transport)
                    raise ConnectionAbortedError("The client does not read the file.")


def can_send(transport: asyncio.Transport) -> bool:
    """Whether the transport is a plain socket, without TLS."""
    if transport.get_extra_info("ssl_object") is not None:
        return False
    return transport.get_extra_info("socket") is not None


def reset(transport: asyncio.Transport) -> None:
    """Close the connection at once, and free what the system still has to send.

    ``abort`` alone leaves it until a client has read it that does not read.
    """
    if not transport.is_closing():
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()


def _close(stack: contextlib.ExitStack, _turn: "asyncio.Future[int]") -> None:
    """Close the descriptors that a thread has used until now."""
    stack.close()


def _send_some(out: int, source: int, at: int, count: int) -> int:
    """The number of bytes sent. 0 if the socket takes none now."""
    try:
        sent = os.sendfile(out, source, at, count)
    except BlockingIOError:
        return 0
    if not sent:
        raise ConnectionAbortedError("The file became shorter than at the start of the download.")
    return sent


async def _written(transport: asyncio.Transport) -> None:
    """Wait until the transport has nothing to send."""
    pause_s = 0.0
    while transport.get_write_buffer_size() and not transport.is_closing():
        await asyncio.sleep(pause_s)  # uvicorn ends a connection whose client does not read
        pause_s = 0.01
    if transport.is_closing():
        raise ConnectionAbortedError("The client has disconnected.")


async def _writable(loop: asyncio.AbstractEventLoop, out: int) -> bool:
    """Wait until the socket takes bytes. False after ``OPERATOR_WRITE_S``."""
    ready = asyncio.Event()
    with _watching(loop, out, ready):
        try:
            async with asyncio.timeout(OPERATOR_WRITE_S):
                await ready.wait()
        except TimeoutError:
            return False
    return True


@contextlib.contextmanager
def _watching(loop: asyncio.AbstractEventLoop, out: int, ready: asyncio.Event) -> Generator[None]:
    loop.add_writer(out, ready.set)
    try:
        yield
    finally:
        loop.remove_writer(out)
