"""The reference for large bodies: a server that receives a request into a kept buffer, and answers.

It parses no more than the length in the first head, so it is the floor for Python and uvloop.
``python bench/serving_drain.py`` prints its port.
"""

import asyncio
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
ROOM = memoryview(bytearray(1 << 20))


class Drain(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self._wanted = self._got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop has a class of its own

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return ROOM[self._got :]

    def buffer_updated(self, size: int) -> None:
        self._got += size
        if not self._wanted:
            head, end, _ = bytes(ROOM[: min(self._got, 1024)]).lower().partition(b"\r\n\r\n")
            length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            self._wanted = len(head) + len(end) + int(length)
        if self._got >= self._wanted:
            self._wanted = self._got = 0
            self._transport.write(ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Drain, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
