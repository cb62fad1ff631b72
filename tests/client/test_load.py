"""The load generator: its histogram, its times, its reading of answers, and what it counts."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import pytest

from edgefleet.base.errors import EdgefleetError, NetworkError
from edgefleet.client.inference.arrivals import due_times
from edgefleet.client.inference.latencies import Latencies, duration_text, picture
from edgefleet.client.inference.load import LoadPlan, run_load
from edgefleet.client.inference.load_report import LatencyReport, LoadReport, load_lines
from edgefleet.http1.answer_reader import AnswerReader

REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize("scale", [10, 1000, 1_000_000])
def test_a_quantile_is_known_within_a_bucket(scale: int) -> None:
    values = np.random.default_rng(scale).gamma(2.0, scale, 5000).astype(int)
    found = Latencies()
    for value in values.tolist():
        found.record(value)
    for share in (0.0, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = float(np.quantile(values, share, method="inverted_cdf"))
        assert exact <= found.quantile_us(share) <= exact * (1 + 1 / 64) + 1e-9
    assert found.mean_us() == pytest.approx(values.mean())
    assert (found.min_us, found.max_us, found.count) == (values.min(), values.max(), 5000)


def test_the_rows_of_a_histogram_join_without_a_gap_and_count_all() -> None:
    found = Latencies()
    for value in (3, 70, 71, 900, 900, 12_345, 10**7):
        found.record(value)
    bars = found.bars(10)
    assert sum(bar.count for bar in bars) == 7
    assert [bar.to_us for bar in bars[:-1]] == [bar.from_us for bar in bars[1:]]
    assert bars[0].from_us <= 3
    assert bars[-1].to_us > 10**7
    assert len(bars) <= 10


def test_a_histogram_is_drawn() -> None:
    found = Latencies()
    for value in [100] * 20 + [101] * 10 + [103]:
        found.record(value)
    assert picture(found.bars()) == [
        "100 us to 101 us  ########################################  20   64.52 %",
        "101 us to 102 us  ####################                      10   96.77 %",
        "102 us to 103 us                                             0   96.77 %",
        "103 us to 104 us  ##                                         1  100.00 %",
    ]
    assert picture(Latencies().bars()) == []


@pytest.mark.parametrize(
    ("us", "text"), [(7, "7 us"), (1530, "1.53 ms"), (25_000_000, "25 s"), (2e9, "2000 s")]
)
def test_a_duration_has_three_digits(us: float, text: str) -> None:
    assert duration_text(us) == text


def test_due_times_have_the_rate() -> None:
    even = list(islice(due_times(50.0, "even", 1), 4))
    assert even == pytest.approx([0.0, 0.02, 0.04, 0.06])
    times = list(islice(due_times(50.0, "poisson", 1), 20_000))
    gaps = np.diff([0.0, *times])
    assert times == list(islice(due_times(50.0, "poisson", 1), 20_000))
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(0.02, rel=0.03)
    assert gaps.std() == pytest.approx(0.02, rel=0.05)  # an exponential gap, unlike an even one


CHUNKED = (
    b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("data", "status", "body", "closes"),
    [
        (ANSWER, 200, b"{}", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER, 200, b"{}", False),
        (CHUNKED, 500, b"abcde", False),
        (b"HTTP/1.1 204 None\r\nConnection: close\r\n\r\n", 204, b"", True),
    ],
)
def test_an_answer_is_read_in_whatever_pieces_it_comes(
    data: bytes, status: int, body: bytes, *, closes: bool
) -> None:
    for size in (1, 2, 5, len(data)):
        reader = AnswerReader()
        for _ in range(2):  # the second answer of the connection, too
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            assert [reader.feed(piece) for piece in pieces] == [*[False] * (len(pieces) - 1), True]
            assert (reader.status, reader.body, reader.closes) == (status, body, closes)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        ANSWER + b"more",
        b"x" * 70_000,
    ],
)
def test_another_answer_is_malformed(data: bytes) -> None:
    with pytest.raises(EdgefleetError) as found:
        AnswerReader().feed(data)
    assert found.value.code == "answer_malformed"


Answering = Callable[[int], "bytes | float | None"]
"""By the number of the request: an answer, a delay in seconds before ANSWER, or None to close."""


@contextmanager
def server(answering: Answering) -> Iterator[int]:
    """The port of a server in a thread."""
    started: list[int] = []
    ready, stop = threading.Event(), threading.Event()
    numbers = iter(range(10**9))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(len(REQUEST)):
            given = answering(next(numbers))
            if isinstance(given, float):
                await asyncio.sleep(given)
                given = ANSWER
            if given is None:
                break
            writer.write(given)
        writer.close()

    async def main() -> None:
        running = await asyncio.start_server(serve, "127.0.0.1", 0)
        started.append(running.sockets[0].getsockname()[1])
        ready.set()
        await asyncio.to_thread(stop.wait)
        running.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield started[0]
    finally:
        stop.set()
        thread.join(10)


def load(port: int, connections: int = 2, **plan: object) -> LoadReport:
    given = {"duration_s": 20.0, "requests": 30, **plan}
    return run_load(LoadPlan("127.0.0.1", port, REQUEST, connections, **given), "m", "1")


def test_errors_are_counted_by_code() -> None:
    refusal = b'{"error":"full","code":"overloaded"}'
    full = b"HTTP/1.1 503 No\r\ncontent-length: %d\r\n\r\n%s" % (len(refusal), refusal)
    answers = {3: full, 4: full, 7: None, 9: b"nonsense\r\n\r\n", 11: 5.0}
    with server(lambda number: answers.get(number, ANSWER)) as port:
        report = load(port, timeout_s=0.3)
    assert report.errors == {
        "overloaded": 2,
        "connection_lost": 1,
        "answer_malformed": 1,
        "timeout": 1,
    }
    assert (report.requests, report.succeeded) == (30, 25)
    assert report.answer_bytes == 2


def test_a_stall_counts_in_the_latency_of_the_requests_that_were_due_behind_it() -> None:
    """With coordinated omission one request of fifty would be slow."""
    with server(lambda number: 0.5 if number == 0 else ANSWER) as port:
        report = load(port, 1, rate=100.0, spacing="even", requests=50)
    assert report.succeeded == 50
    assert report.service_us.p50 < 100_000
    assert report.latency_us.p50 > 100_000  # due in the stall, and sent after it
    assert report.latency_us.max >= report.service_us.max


def test_requests_that_no_connection_was_free_for_are_counted() -> None:
    with server(lambda _: 0.4) as port:
        report = load(port, 1, rate=100.0, spacing="even", duration_s=0.2, requests=None)
    assert (report.requests, report.succeeded, report.not_sent) == (1, 1, 19)


def test_a_load_on_nothing_is_unreachable() -> None:
    with pytest.raises(NetworkError) as found:
        load(1)
    assert found.value.code == "unreachable"


def test_the_warm_up_is_not_counted() -> None:
    seen: list[int] = []

    def answering(number: int) -> bytes:
        seen.append(number)
        return ANSWER

    with server(answering) as port:
        report = load(port, warm_up_s=0.1)
    assert report.requests == 30
    assert len(seen) > 30


def test_a_report_says_what_went_wrong() -> None:
    report = LoadReport(
        model="m",
        release="7",
        mode="open",
        connections=2,
        rate=50.0,
        elapsed_s=10.0,
        requests=500,
        succeeded=490,
        errors={"timeout": 1, "overloaded": 9},
        not_sent=4,
        per_second=49.0,
        request_bytes=70,
        answer_bytes=2,
        client_cpu=0.97,
        latency_us=LatencyReport(min=90, mean=200.5, p50=150, p90=1e3, p99=2e3, p999=3e3, max=4000),
        service_us=LatencyReport(min=80, mean=100.0, p50=90, p90=200, p99=300, p999=400, max=500),
    )
    assert load_lines(report) == [
        "model       m, release 7",
        "load        open loop, 50 requests a second, 2 connections, 10.0 s",
        "requests    500, 490 succeeded",
        "throughput  49.0 a second",
        "bytes       70 a request, 2 an answer",
        "not sent    4 were due, but every connection was busy",
        "errors      overloaded 9, timeout 1",
        "load CPU    97 % of a core: it may itself be the limit",
        "",
        "                  min     mean      p50      p90      p95      p99    p99.9      max",
        "latency         90 us   200 us   150 us     1 ms     0 us     2 ms     3 ms     4 ms",
        "from sent       80 us   100 us    90 us   200 us     0 us   300 us   400 us   500 us",
        "",
    ]
