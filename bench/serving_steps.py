"""The CPU of one request inside the server, without a network: for work on the hot path.

``python bench/serving_steps.py`` feeds requests to real connections on a transport that forgets its
bytes, and prints microseconds of CPU a request: alone, and for 16 that arrive in one turn of the
event loop. The least of several rounds is shown, because neighbours only add. With ``--profile`` it
prints where the time goes. The kernel's share (receive, send, poll) is in bench/serving.py.
"""

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import cast

import numpy as np
import uvloop
from serving_models import image, tiny
from serving_requests import request, served, tiny_body

from edgefleet.http1.connection import Connection
from edgefleet.http1.server import Listener
from edgefleet.protocol.serving import Apply
from edgefleet.serving.limits import INFERENCE
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.rest import Rest
from edgefleet.serving.routes import render_error
from serving import in_process

ROUNDS = 7
RAW = "Inference-Header-Content-Length: 0\r\n"


class Transport(asyncio.Transport):
    """Counts what is written, and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return

    def write(self, data: object) -> None:
        self.last = bytes(data)  # type: ignore[call-overload]
        self.answers += self.last.startswith(b"HTTP/1.1 200")

    def writelines(self, pieces: object) -> None:
        self.write(b"".join(pieces))  # type: ignore[call-overload]

    def is_closing(self) -> bool:
        return False


def feed(connection: Connection, data: bytes) -> None:
    """Deliver ``data`` as the event loop does."""
    view = memoryview(data)
    while view:
        room = connection.get_buffer(len(view))
        size = min(len(room), len(view))
        room[:size] = view[:size]
        connection.buffer_updated(size)
        view = view[size:]


async def turns(pairs: list[tuple[Connection, Transport]], asked: list[bytes], count: int) -> None:
    """``count`` turns, in each of which every connection gets one request and answers it."""
    for _ in range(count):
        wanted = pairs[-1][1].answers + 1
        for (connection, _), data in zip(pairs, cycle(asked), strict=False):
            feed(connection, data)
        while pairs[-1][1].answers < wanted:  # noqa: ASYNC110 - turns of the event loop
            await asyncio.sleep(0)


async def measure(folder: Path, *, profile: bool) -> None:
    host = ModelHost()
    small, picture = tiny(folder / "t.onnx"), image(folder / "i.onnx")
    await host.apply(Apply(generation=1, models=(served("tiny", small), served("image", picture))))
    loop = asyncio.get_running_loop()
    listener = Listener(Rest(host), INFERENCE, render_error, host.bodies.room)
    listener.date = b"date: Mon, 30 Nov 2026 08:00:00 GMT\r\n"
    pixels = np.random.default_rng(1).random(3 * 224 * 224, np.float32).tobytes()
    body = tiny_body()
    many = [request("tiny", tiny_body(client)) for client in range(16)]
    cases = {
        "tiny, alone": (1, 4000, many[:1]),
        "tiny, 16 a turn": (16, 250, many),
        "image of 602 kB": (1, 100, [request("image", pixels, RAW)]),
    }  # fmt: skip
    print(f"{'in process, no server':24}{1e6 / in_process(small, body, 0.5):8.1f} us")
    for name, (clients, count, data) in cases.items():
        transports = [Transport() for _ in range(clients)]
        pairs = [(Connection(listener, loop), one) for one in transports]
        for connection, transport in pairs:
            connection.connection_made(transport)
        await turns(pairs, data, 50)
        least = float("inf")
        for _ in range(ROUNDS):
            began = time.thread_time()
            await turns(pairs, data, count)
            least = min(least, (time.thread_time() - began) / count / clients)
        await asyncio.sleep(0.01)
        got = sum(transport.answers for transport in transports)
        assert got == clients * (50 + ROUNDS * count), transports[0].last
        print(f"{name:24}{1e6 * least:8.1f} us", flush=True)
        if profile:
            profiler = cProfile.Profile()
            profiler.enable()
            await turns(pairs, data, count)
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(28)
        for connection, _ in pairs:
            connection.connection_lost(None)
    await host.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The CPU of one request inside the server.")
    parser.add_argument("--profile", action="store_true")
    profile = cast("bool", parser.parse_args().profile)
    with tempfile.TemporaryDirectory() as name:
        uvloop.run(measure(Path(name), profile=profile))


if __name__ == "__main__":
    main()
