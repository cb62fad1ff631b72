"""The page over a fake hub on a real socket, in a thread, to be stopped and started again."""

import asyncio
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from support.fake_reads import FakeReads, page_server


class PageServer:
    """Started with ``with``. ``stop`` and ``start`` keep the port, as a hub's restart does."""

    def __init__(self, reads: FakeReads) -> None:
        self.reads = reads
        self.port = 0
        self._thread: threading.Thread | None = None
        self._leave: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        self.port = started.result(timeout=20)

    def stop(self) -> None:
        assert self._leave is not None
        assert self._thread is not None
        loop, leave = self._leave
        loop.call_soon_threadsafe(leave.set)
        self._thread.join(timeout=20)
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

    def _run(self, started: "Future[int]") -> None:
        async def serve() -> None:
            leave = asyncio.Event()
            async with page_server(self.reads, self.port) as port:
                self._leave = (asyncio.get_running_loop(), leave)
                started.set_result(port)
                await leave.wait()

        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
