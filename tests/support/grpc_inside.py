"""The gRPC listener in a thread of the test, with a model that waits until the test lets it run."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefleet.base.errors import DeviceError
from edgefleet.http2.server import Listener
from edgefleet.protocol.fallback import FallbackSettings
from edgefleet.serving.active_release import ActiveRelease
from edgefleet.serving.bounds import Bounds
from edgefleet.serving.client_quota import ClientQuota
from edgefleet.serving.grpc.listener import listen_grpc
from edgefleet.serving.hybrid.door import Hybrid
from edgefleet.serving.hybrid.grpc_question import HybridCalls
from edgefleet.serving.inference import Inferences
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.run_marks import RunMarks
from support.tiny_models import TinyModel


class Gated:
    """A model that blocks until the test opens ``gate``."""

    run_us = 5_000
    threads = ()

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.fail = False
        self.runs = 0

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        assert self.gate.wait(60)
        self.runs += 1
        if self.fail:
            raise DeviceError("inference_failed", "It failed.")
        return [np.full((1, 10), 0.1, np.float32) for _ in outputs]


@dataclass
class Inside:
    address: str
    host: ModelHost
    gated: Gated
    listener: Listener
    loop: asyncio.AbstractEventLoop
    hybrid: Hybrid | None = None

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


@contextmanager
def gated_server(
    model: TinyModel,
    bounds: Bounds | None = None,
    fallback: Callable[[], Awaitable[FallbackSettings]] | None = None,
) -> Iterator[Inside]:
    """``fallback`` is awaited on the loop of the server."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> Inside:
        known = bounds or Bounds()
        host, gated = ModelHost(bounds=known), Gated()
        release = ActiveRelease(
            "digits", model.served("old"), gated, marks=RunMarks(), queued=known.queue
        )
        host.routes = {"digits": release}
        quota = ClientQuota(known.client_rate, known.client_burst)
        inferences, hybrid = Inferences(host), None
        if fallback is not None:
            hybrid = Hybrid(inferences, await fallback())
        asked = inferences if hybrid is None else HybridCalls(hybrid)
        listener = await listen_grpc(asked, "127.0.0.1", 0, known, quota)
        return Inside(f"127.0.0.1:{listener.port}", host, gated, listener, loop, hybrid)

    inside = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield inside
    finally:
        inside.gated.gate.set()
        inside.do(inside.listener.close())
        if inside.hybrid is not None:
            loop.call_soon_threadsafe(inside.hybrid.close)
        inside.do(inside.host.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
