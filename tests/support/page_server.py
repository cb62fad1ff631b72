"""The page over a fake hub on a real socket, to be stopped and started again.

Run it to view the pages: ``python -m support.page_server 8499`` with ``tests`` on the path.
"""

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette

from edgefleet.cli.demo.processes import reserve_port
from edgefleet.protocol.rollout import Status
from edgefleet.web.routes import routes_for
from support.fake_reads import TOKEN, FakeReads
from support.scenes import rollout_in
from support.waiting import WAIT_S


@contextlib.asynccontextmanager
async def page_server(
    reads: FakeReads, port: int = 0, interval_s: float = 0.05
) -> AsyncIterator[int]:
    """The page over ``reads`` on a loopback port, which is yielded; stopped on the way out."""
    app = Starlette(routes=routes_for(reads, interval_s=interval_s))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with contextlib.ExitStack() as stack:
        running = asyncio.create_task(server.serve())
        stack.callback(running.cancel)
        deadline = time.monotonic() + WAIT_S
        while not server.started:
            if running.done():
                await running
            if time.monotonic() > deadline:
                raise AssertionError(f"The page's server did not start within {WAIT_S:g} s.")
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        await running


class PageServer:
    """Started with ``with``. ``stop`` and ``start`` keep the port, as a hub's restart does."""

    def __init__(self, reads: FakeReads) -> None:
        self.reads = reads
        self._held = reserve_port()
        self.port: int = self._held.getsockname()[1]
        self._thread: threading.Thread | None = None
        self._leave: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        started.result(timeout=60)

    def stop(self) -> None:
        assert self._leave is not None
        assert self._thread is not None
        loop, leave = self._leave
        loop.call_soon_threadsafe(leave.set)
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()
        self._leave = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._leave is not None:
            self.stop()
        self._held.close()

    def _run(self, started: "Future[None]") -> None:
        async def serve() -> None:
            leave = asyncio.Event()
            async with page_server(self.reads, self.port):
                self._leave = (asyncio.get_running_loop(), leave)
                started.set_result(None)
                await leave.wait()

        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)


async def _look(port: int) -> None:
    reads = FakeReads(time.time())
    for status in (Status.PLANNED, Status.PAUSED, Status.HALTED, Status.REVERTING, Status.RUNNING):
        reads.put(rollout_in(status, now=reads.now))
    async with page_server(reads, port, interval_s=1.0):
        print(f"http://127.0.0.1:{port}/login?code=once, later with the token {TOKEN}")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_look(int(sys.argv[1])))
