"""A load generator: one request, again and again, over kept-alive connections.

A closed loop sends the next request of a connection when its answer is here: it measures what the
server can do. An open loop sends requests when they are due, as clients do that know nothing of
each other. The latency of an open loop begins when the request was due: if a slow answer delays the
next requests, their delay is counted (no coordinated omission).
"""

import asyncio
import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from edgefleet.base.errors import NetworkError
from edgefleet.client.inference.arrivals import Spacing, due_times
from edgefleet.client.inference.latencies import Latencies
from edgefleet.client.inference.limits import RECONNECT_S, SWEEP_S
from edgefleet.client.inference.load_report import LoadReport, latency_report
from edgefleet.client.inference.model_info import error_of_answer
from edgefleet.http1.answer_reader import AnswerReader

_WAKE_S: Final = 0.0002  # between two wakes of an open loop, at least


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """``request`` is a whole HTTP request. ``rate`` None is a closed loop.

    It ends after ``duration_s`` seconds or ``requests`` requests. Requests of the first
    ``warm_up_s`` seconds are sent in the same way, but not counted.
    """

    host: str
    port: int
    request: bytes
    connections: int
    duration_s: float
    requests: int | None = None
    rate: float | None = None
    spacing: Spacing = "poisson"
    seed: int = 1
    warm_up_s: float = 0.0
    timeout_s: float = 10.0


class _Counts:
    """The counts of a load; replaced when the warm-up ends."""

    def __init__(self) -> None:
        self.latency = Latencies()
        self.service = Latencies()
        self.refusals = Latencies()
        self.errors: Counter[str] = Counter()
        self.answer_bytes = 0
        self.sent = 0
        self.not_sent = 0
        self.without_retry_after = 0


class _Client(asyncio.Protocol):
    """One connection, with at most one request in flight."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._due = 0.0
        self._sent = 0.0
        self.busy = False

    def send(self, due: float) -> None:
        self.busy = True
        self._due = due
        self._sent = time.perf_counter()
        if self._transport is not None:
            self._transport.write(self._load.plan.request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._load.is_free(self)

    def data_received(self, data: bytes) -> None:
        if not self.busy:
            self._end("answer_malformed")
            return
        try:
            whole = self._reader.feed(data)
        except NetworkError as error:
            self._end(error.code)
            return
        if not whole:
            return
        self.busy = False
        self._load.answered(self._reader, self._due, self._sent)
        if self._reader.closes and self._transport is not None:
            self._transport.close()
        else:
            self._load.is_free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        if self.busy:
            self._end("connection_lost")
        self._load.lost(self)

    def check(self, now: float) -> None:
        """End the connection if its request is older than the timeout."""
        if self.busy and now - self._sent > self._load.plan.timeout_s:
            self._end("timeout")

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self, code: str) -> None:
        if self.busy:
            self.busy = False
            self._load.failed(code)
        self.abort()


class _Load:
    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.counts = _Counts()
        self._loop = asyncio.get_running_loop()
        self._free: deque[_Client] = deque()
        self._clients: set[_Client] = set()
        self._due: deque[float] = deque()  # requests of an open loop that wait for a connection
        self._times: Iterator[float] = iter(())
        self._next = 0.0
        self._began = 0.0
        self._stops = 0.0
        self._last = 0.0
        self._limit: int | None = None
        self._sent = 0
        self._in_flight = 0
        self._stopping = False
        self._connecting: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        self._ended = threading.Event()

    async def run(self) -> None:
        """Connect, warm up, measure, and wait for the last answers."""
        await asyncio.gather(*[self._connect() for _ in range(self.plan.connections)])
        if self.plan.warm_up_s:
            await self._play(self.plan.warm_up_s, None)
            self.counts = _Counts()
        await self._play(self.plan.duration_s, self.plan.requests)
        self._stopping = True
        for task in self._connecting:
            task.cancel()
        for client in tuple(self._clients):
            client.abort()

    @property
    def elapsed_s(self) -> float:
        """From the first request to the last answer."""
        return self._last - self._began

    async def _play(self, duration_s: float, requests: int | None) -> None:
        plan = self.plan
        self._done.clear()
        self._sent, self._limit = 0, requests
        self._began = self._last = time.perf_counter()
        self._stops = self._began + duration_s
        if plan.rate is not None:
            self._times = due_times(plan.rate, plan.spacing, plan.seed)
            self._next = self._began + next(self._times)
            pace = partial(self._loop.call_soon_threadsafe, self._pace)
            arguments = (plan, self._began, self._stops, pace, self._ended)
            threading.Thread(target=_wake, args=arguments, daemon=True).start()
        for client in tuple(self._free):
            self._send_from(client)
        while not self._done.is_set():
            try:
                await asyncio.wait_for(self._done.wait(), SWEEP_S)
            except TimeoutError:
                self._sweep()
        self._ended.set()
        self._ended = threading.Event()

    def _sweep(self) -> None:
        now = time.perf_counter()
        for client in tuple(self._clients):
            client.check(now)
        self._check_end()

    def _over(self) -> bool:
        is_last = self._limit is not None and self._sent + len(self._due) >= self._limit
        return is_last or time.perf_counter() >= self._stops

    def _check_end(self) -> None:
        if self.plan.rate is not None and time.perf_counter() >= self._stops and self._due:
            self.counts.not_sent += len(self._due)
            self._due.clear()
        if self._over() and not self._in_flight and not self._due:
            self._done.set()

    def _pace(self) -> None:
        """Send the requests that are due now, as far as connections are free."""
        now = time.perf_counter()
        while self._next <= now and self._next < self._stops and not self._over():
            self._due.append(self._next)
            self._next = self._began + next(self._times)
        while self._due and self._free:
            self._send_from(self._free[0])

    def is_free(self, client: _Client) -> None:
        self._clients.add(client)
        self._free.append(client)
        if self._began and not self._done.is_set():
            self._send_from(client)
            self._check_end()

    def _send_from(self, client: _Client) -> None:
        if self.plan.rate is None:
            if self._over():
                return
            due = time.perf_counter()
        elif self._due:
            if time.perf_counter() >= self._stops:
                return
            due = self._due.popleft()
        else:
            return
        self._free.remove(client)
        self._sent += 1
        self.counts.sent += 1
        self._in_flight += 1
        client.send(due)

    def answered(self, reader: AnswerReader, due: float, sent: float) -> None:
        self._last = now = time.perf_counter()
        self._in_flight -= 1
        counts = self.counts
        if reader.status != 200:
            counts.errors[error_of_answer(reader.status, reader.body).code] += 1
            counts.refusals.record(round((now - sent) * 1e6))
            counts.without_retry_after += reader.status in (429, 503) and not reader.retry_after
            return
        counts.latency.record(round((now - due) * 1e6))
        counts.service.record(round((now - sent) * 1e6))
        counts.answer_bytes = len(reader.body)

    def failed(self, code: str) -> None:
        self._last = time.perf_counter()
        self._in_flight -= 1
        self.counts.errors[code] += 1

    def lost(self, client: _Client) -> None:
        """A connection has closed: open another one."""
        self._clients.discard(client)
        if client in self._free:
            self._free.remove(client)
        if not self._stopping:
            task = self._loop.create_task(self._reconnect())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        self._check_end()

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(
                lambda: _Client(self), self.plan.host, self.plan.port
            )
        except OSError as error:
            raise NetworkError(
                "unreachable",
                f"No connection to {self.plan.host}:{self.plan.port}: {error.strerror or error}.",
            ) from error

    async def _reconnect(self) -> None:
        while not self._stopping:
            await asyncio.sleep(RECONNECT_S)
            try:
                await self._connect()
            except NetworkError as error:
                self.counts.errors[error.code] += 1
            else:
                return


def _wake(
    plan: LoadPlan,
    began: float,
    stops: float,
    pace: Callable[[], object],
    ended: threading.Event,
) -> None:
    """Call ``pace`` at each due time, until ``stops`` or until ``ended`` is set.

    In a thread, because timers of an event loop are a millisecond coarse, and polling would take a
    core from the server.
    """
    woken = 0.0
    for due in due_times(plan.rate or 1.0, plan.spacing, plan.seed):
        at = began + due
        if at >= stops or ended.is_set():
            return
        if at <= woken:
            continue
        wait_s = at - time.perf_counter()
        if wait_s > 0 and ended.wait(max(wait_s, _WAKE_S)):
            return
        woken = time.perf_counter()
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            pace()


def run_load(plan: LoadPlan, model: str, release: str) -> LoadReport:
    """Run the load and report it. Raises NetworkError ``unreachable`` if it cannot begin."""
    cpu_s = time.process_time()
    began = time.perf_counter()
    load = _run(lambda: _Load(plan))
    counts, elapsed_s = load.counts, max(load.elapsed_s, 1e-6)
    cpu_share = (time.process_time() - cpu_s) / max(time.perf_counter() - began, 1e-6)
    return LoadReport(
        model=model,
        release=release,
        mode="closed" if plan.rate is None else "open",
        connections=plan.connections,
        rate=plan.rate,
        elapsed_s=round(elapsed_s, 3),
        requests=counts.sent,
        succeeded=counts.latency.count,
        errors=dict(counts.errors),
        not_sent=counts.not_sent,
        without_retry_after=counts.without_retry_after,
        per_second=round(counts.latency.count / elapsed_s, 1),
        request_bytes=len(plan.request),
        answer_bytes=counts.answer_bytes,
        client_cpu=round(cpu_share, 2),
        latency_us=latency_report(counts.latency),
        service_us=latency_report(counts.service),
        refusal_us=latency_report(counts.refusals),
        histogram=counts.latency.bars(),
    )


def _run(make: Callable[[], _Load]) -> _Load:
    async def main() -> _Load:
        load = make()
        await load.run()
        return load

    try:
        import uvloop  # noqa: PLC0415 - faster where it is installed
    except ImportError:
        return asyncio.run(main())
    return uvloop.run(main())
