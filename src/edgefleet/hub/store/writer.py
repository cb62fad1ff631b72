"""Group commit: one writer thread commits all queued jobs together.

A job is a function of the connection, and must be safe to run again. If one job of a commit fails,
the transaction is rolled back and each job gets its own, so that only the faulty job fails.
"""

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edgefleet.base.errors import EdgefleetError, InternalError, Overloaded
from edgefleet.hub.limits import OVERLOAD_RETRY_S, REOPEN_AFTER_S, WRITES_PER_COMMIT, WRITES_WAITING
from edgefleet.hub.store.connection import Opened
from edgefleet.hub.store.faults import LOCKED, is_read_only, primary_code, store_error

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
Reopen = Callable[[sqlite3.Connection], Coroutine[None, None, Opened]]


@dataclass(slots=True)
class _Waiting:
    job: Job[Any]
    future: "asyncio.Future[Any]"
    committed: Callable[[Any], None] | None
    since: float  # by the monotonic clock
    result: Any = None
    error: Exception | None = None


class Writer:
    """Owns ``connection`` (in autocommit mode), and closes it.

    ``observe`` is called after each commit with its duration in seconds. ``writes`` counts the
    committed jobs. ``fault`` is what kept the last commit from the disk, None if it is there.

    SQLite never writes through a connection that it opened while the disk could not be written.
    ``refused`` says so of ``connection``, and a commit may fail for it. Then later commits use the
    connection that ``reopen``, called on the loop with the old one, returns; at most one a second.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        loop: asyncio.AbstractEventLoop,
        *,
        observe: Callable[[float], None] = lambda _seconds: None,
        reopen: Reopen | None = None,
        refused: sqlite3.Error | None = None,
    ) -> None:
        self._connection = connection
        self._reopen = reopen
        self._refused: Exception | None = refused
        self._opened_at = time.monotonic()
        self.fault: EdgefleetError | None = None
        self._loop = loop
        self._observe = observe
        self.writes = 0
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hub-writer", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Number of queued jobs."""
        return len(self._waiting)

    def check_room(self, waited_at_most_s: float = float("inf")) -> None:
        """Raise Overloaded ``queue_full`` if the queue is full, or ``deadline`` if it is too slow.

        It is too slow if its oldest job has waited for more than ``waited_at_most_s``.
        """
        try:
            waited_s = time.monotonic() - self._waiting[0].since
        except IndexError:  # the writer has just taken the last one
            waited_s = 0.0
        if len(self._waiting) >= WRITES_WAITING:
            raise Overloaded(
                "queue_full",
                f"{WRITES_WAITING} writes are queued, which is the limit.",
                retry_after_s=OVERLOAD_RETRY_S,
            )
        if waited_s > waited_at_most_s:
            raise Overloaded(
                "deadline",
                f"The oldest queued write has waited for {waited_s:.1f} s.",
                retry_after_s=OVERLOAD_RETRY_S,
            )

    def submit(
        self, job: Job[T], committed: Callable[[T], None] | None = None
    ) -> "asyncio.Future[T]":
        """Queue ``job`` for the next commit. Returns a future with the job's result.

        The future resolves after the commit is durable. Before any future of a commit resolves,
        the loop calls each ``committed`` with its job's result, in the order of the commits, so
        that memory equals the state after a restart. Raises DeviceError ``overloaded``. The future
        raises the job's own error, that of ``store_error``, or InternalError.
        """
        self.check_room()
        if self._closing:
            raise InternalError("internal", "The store is closed.")
        waiting = _Waiting(job, self._loop.create_future(), committed, time.monotonic())
        with self._wake:
            self._waiting.append(waiting)
            self._wake.notify()
        return waiting.future

    async def close(self) -> None:
        """Commit the queued jobs, then stop the thread and close the connection."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _run(self) -> None:
        while batch := self._next():
            started = time.perf_counter()
            self._commit(batch)
            seconds = time.perf_counter() - started
            self._loop.call_soon_threadsafe(self._resolve, batch, seconds)

    def _next(self) -> list[_Waiting]:
        """At most ``WRITES_PER_COMMIT`` jobs. Empty if the writer closes and none is queued."""
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            count = min(len(self._waiting), WRITES_PER_COMMIT)
            return [self._waiting.popleft() for _ in range(count)]

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            self._transaction(batch)
        except Exception as error:  # noqa: BLE001 - raised by the futures
            if len(batch) > 1 and primary_code(error) not in LOCKED:
                for waiting in batch:
                    self._commit([waiting])
                return
            failure = store_error(error)
            for waiting in batch:
                waiting.error = failure
            if isinstance(failure, EdgefleetError) and primary_code(error) not in (0, *LOCKED):
                self.fault = failure
            if is_read_only(error):
                self._refused = error
        else:
            self.fault = None

    def _transaction(self, batch: Sequence[_Waiting]) -> None:
        if self._refused is not None:
            self._open_again(self._refused)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for waiting in batch:
                waiting.result = waiting.job(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _open_again(self, refused: Exception) -> None:
        """Replace a connection that never writes. Raises ``refused`` if it is too early."""
        now = time.monotonic()
        if self._reopen is None or now - self._opened_at < REOPEN_AFTER_S:
            raise refused
        self._opened_at = now
        opening = asyncio.run_coroutine_threadsafe(self._reopen(self._connection), self._loop)
        self._connection, self._refused = opening.result()
        if self._refused is not None:
            raise self._refused

    def _resolve(self, batch: Sequence[_Waiting], seconds: float) -> None:
        self.writes += len(batch)
        self._observe(seconds)
        for waiting in batch:
            if waiting.error is None and waiting.committed is not None:
                try:
                    waiting.committed(waiting.result)
                except Exception as error:  # noqa: BLE001 - raised by the future
                    waiting.error = error
        for waiting in batch:
            if waiting.future.done():  # the caller was cancelled; the commit remains
                continue
            if waiting.error is not None:
                waiting.future.set_exception(waiting.error)
            else:
                waiting.future.set_result(waiting.result)
