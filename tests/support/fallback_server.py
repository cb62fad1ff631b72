"""A fallback on the test's loop, which answers as the test says."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from edgefleet.http1.message import Reply, reply_bytes


@dataclass(frozen=True)
class Forwarded:
    """A request as the fallback got it."""

    target: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[Forwarded], Awaitable[Reply | bytes | None]]
"""Answers a request with a reply, with raw bytes, or not at all: then the connection ends."""


class FallbackServer:
    """The server. ``requests`` are those that came, ``lost`` counts the closed connections."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[Forwarded] = []
        self.connections = 0
        self.lost = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")[:-2]
                headers = {
                    k.lower(): v.strip() for k, _, v in (row.partition(":") for row in lines)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append(Forwarded(first.split(" ")[1], headers, body))
                answering = asyncio.ensure_future(self.behave(self.requests[-1]))
                ending = asyncio.ensure_future(reader.read(1))
                await asyncio.wait((answering, ending), return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():  # the client has gone
                    answering.cancel()
                    return
                ending.cancel()
                await asyncio.wait((ending,))
                answer = answering.result()
                if answer is None:
                    return
                if isinstance(answer, Reply):
                    answer = b"".join(reply_bytes(answer, b"", to_head=False, closes=False))
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.lost.set()
            writer.close()


@contextlib.asynccontextmanager
async def fallback(
    behave: Behaviour, context: ssl.SSLContext | None = None
) -> AsyncIterator[FallbackServer]:
    server = FallbackServer(behave)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"http{'s' if context else ''}://localhost:{port}"
    try:
        yield server
    finally:
        listening.close()


async def answers(request: Forwarded) -> Reply:
    """An answer of the Open Inference Protocol, or of TensorFlow Serving."""
    if request.target.startswith("/v1/"):
        return Reply(200, b'{"predictions": [[0.25, 0.75]]}')
    return Reply(200, b'{"model_name": "digits", "model_version": "9", "outputs": []}')


async def hangs(request: Forwarded) -> None:
    del request
    await asyncio.sleep(600)
