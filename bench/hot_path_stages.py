# ruff: noqa: SLF001 - a stage alone is inside of its class
"""The program that bench/hot_path_instructions.py counts: each stage of a request, many times.

``python bench/hot_path_stages.py RELEASE_FILE TURNS``: the file has the release of the tiny model.
Before and after each stage the program calls ``getpriority``, where valgrind divides its counts. It
prints the least CPU time of each stage in nanoseconds a request, as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from serving_floor import decode_run_encode
from serving_requests import request, served, tiny_body

from edgefleet.http1.connection import Connection
from edgefleet.http1.message import Reply, Request
from edgefleet.http1.server import Listener
from edgefleet.protocol.serving import Apply, ServedRelease
from edgefleet.serving.inference import Answered, Inferences
from edgefleet.serving.limits import INFERENCE
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.oip_codec import RestCodec
from edgefleet.serving.rest import Rest, is_urgent
from edgefleet.serving.routes import render_error
from edgefleet.serving.row_wise import stacked

CONNECTIONS = 16
WARM = 20  # turns until the model is known to be fast and row-wise
Stage = Callable[[], Awaitable[object] | None]


class Sink:
    """The transport of a connection, without a socket."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def close(self) -> None:
        sys.exit("a connection was closed")

    pause_reading = resume_reading = abort = close


class Clients:
    """16 connections to one listener. ``turn`` is a request of each, and waits for the replies."""

    def __init__(self, listener: Listener, bodies: list[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = 0
        self._answered = self._loop.create_future()
        self.requests = [request("tiny", body) for body in bodies]
        self.connections = [Connection(listener, self._loop) for _ in bodies]
        for connection in self.connections:
            connection.connection_made(Sink(self._receive))  # type: ignore[arg-type]

    def _receive(self, reply: bytes) -> None:
        if not reply.startswith(b"HTTP/1.1 200"):
            sys.exit(f"no answer: {reply!r}")
        self._waiting -= 1
        if not self._waiting:
            self._answered.set_result(None)

    async def turn(self) -> None:
        self._answered = self._loop.create_future()
        self._waiting = CONNECTIONS
        for connection, data in zip(self.connections, self.requests, strict=True):
            connection.get_buffer(-1)[: len(data)] = data
            connection.buffer_updated(len(data))
        await self._answered


class NoInferences(Inferences):
    """Answers without a model: what is left is the way to it."""

    def infer(self, *_: object) -> Reply:  # type: ignore[override]
        return Reply(200)


async def stages(release: ServedRelease) -> dict[str, Stage]:
    """The stages of a turn, each with the objects of the whole path.

    ``answer`` is encoding and telemetry.
    """
    host = ModelHost()
    await host.apply(Apply(generation=1, models=(served("tiny", release),)))
    active = host.routes["tiny"]
    inferences = Inferences(host)
    listener = Listener(
        Rest(host, inferences), INFERENCE, render_error, host.bodies.room, is_urgent
    )
    listener._sweep()
    bodies = [tiny_body(client) for client in range(CONNECTIONS)]
    clients = Clients(listener, bodies)
    for _ in range(WARM):
        await clients.turn()
    reader = clients.connections[0]._reader
    codec = RestCodec(host.bodies)
    route = Rest(host, NoInferences(host))
    headers = {b"host": b"bench", b"content-length": b"535"}
    parsed = [Request("POST", "/v2/models/tiny/infer", "", headers, body) for body in bodies]
    asked = [codec.read(one, active) for one in parsed]
    inputs = stacked([one.inputs for one in asked])
    inferred = active.infer(inputs, ("scores",))
    assert isinstance(inferred, tuple)
    scores = inferred[0][0].reshape(CONNECTIONS, 1, -1)
    answered = [
        Answered(active, one, {"scores": row}, "0123456789ab-12345", 1)
        for one, row in zip(asked, scores, strict=True)
    ]
    replies = [codec.reply(one) for one in answered]
    for one in parsed:
        inferences.infer(codec, one, "tiny")
    group = list(inferences._tick._queue)
    floor = decode_run_encode(release.artifact_path)

    def read() -> None:
        for data in clients.requests:
            reader.buffer()[: len(data)] = data
            taken = reader.whole_request(len(data))
            assert taken is not None
            reader.account(-len(taken.raw_body))

    def run() -> None:
        active.infer(stacked([one.inputs for one in asked]), ("scores",))

    def write() -> None:
        clients._waiting = -1
        for connection, one, reply in zip(clients.connections, parsed, replies, strict=True):
            reader.account(len(one.raw_body))
            connection._reply(one, reply)

    return {
        "whole": clients.turn,
        "in process": lambda: each(floor, bodies),
        "read": read,
        "route": lambda: each(route, parsed),
        "decode": lambda: each(lambda one: codec.read(one, active), parsed),
        "run": run,
        "encode": lambda: each(codec.reply, answered),
        "answer": lambda: each(lambda _: inferences._answer(group, inputs, inferred), [None]),
        "write": write,
    }


def each(work: Callable[[Any], object], items: Sequence[object]) -> None:
    for item in items:
        work(item)


async def main(release: ServedRelease, turns: int) -> None:
    shortest = {}
    for name, stage in (await stages(release)).items():
        for number in range(turns + 1):
            if number == 1:
                os.getpriority(os.PRIO_PROCESS, 0)
            began = time.thread_time_ns()
            coming = stage()
            if coming is not None:
                await coming
            took = time.thread_time_ns() - began
            shortest[name] = min(took, shortest.get(name, took))
        os.getpriority(os.PRIO_PROCESS, 0)
    print(json.dumps({name: took / CONNECTIONS for name, took in shortest.items()}))


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        found = msgspec.json.decode(file.read(), type=ServedRelease)
    uvloop.run(main(found, int(sys.argv[2])))
