"""A server with four times the load that it can answer. Writes bench/out/overload.json.

Three parts, each with a real serving process in a cgroup of 512 MiB and 1 CPU (root; without one
the process has a core, and the counts of kills are absent):

* ``overload``: four times the steady rate in an open loop, for ``--seconds``; health is asked all
  the while, over a connection of its own and over new ones.
* ``beside``: health while 256 idle connections of two addresses are open, and a JSON body of 12 MB
  and a reply of 2 million floats are on their way, again and again.
* ``small_pod``: a model of 100 MB, 50 swaps of it under load, then four times the load.

``python bench/overload.py`` needs about four minutes. The exit code is 1 if a limit is exceeded.
"""

import argparse
import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from pod import Pod, pod
from result_file import machine, show, write
from serving_models import Serving, heavy, repeater
from serving_requests import request, served, tiny_body
from swaps import swap_heavy

from edgefleet.base.errors import NetworkError
from edgefleet.base.network import HttpLink
from edgefleet.client.inference.load import LoadPlan, run_load
from edgefleet.client.inference.load_report import LoadReport

POD_MIB, POD_CPUS = 512, 1.0
CONNECTIONS = 128
IDLE = 256
FLOATS = 2_000_000
BODY_MB = 12
QUEUED = 32
FAILED_MS = 5000.0
LIMITS: dict[str, tuple[str, float]] = {
    "accepted_p99_of_limit": ("<=", 2.0),
    "refusal_p99_ms": ("<=", 5.0),
    "without_retry_after": ("<=", 0),
    "other_errors": ("<=", 0),
    "health_max_ms": ("<=", 100.0),
    "memory_grew_mib": ("<=", 5.0),
    "recovery_s": ("<=", 1.0),
    "oom_kills": ("<=", 0),
}


class Probe:
    """Health checks while it runs, each over the same connection or over a new one.

    One without a good answer counts as failed, and as FAILED_MS.
    """

    def __init__(self, url: str, *, fresh: bool) -> None:
        self._url = url
        self._fresh = fresh
        self._stop = threading.Event()
        self.took_ms: list[float] = []
        self.failed = 0
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def end(self) -> list[float]:
        self._stop.set()
        self._thread.join()
        return self.took_ms

    def _ask(self) -> None:
        link = HttpLink(self._url)
        while not self._stop.wait(0.05):
            began = time.perf_counter()
            try:
                ready = link.request("GET", "/v2/health/ready", timeout_s=5).status == 200
            except NetworkError:
                ready = False
            self.failed += not ready
            took_ms = (time.perf_counter() - began) * 1000
            self.took_ms.append(took_ms if ready else FAILED_MS)
            if self._fresh:
                link.close()
        link.close()


class Memory:
    """The memory of the server while it runs, twice a second."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._stop = threading.Event()
        self.mib: list[float] = []
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> list[float]:
        self._stop.set()
        self._thread.join()
        return self.mib

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.mib.append(self._read())


@contextlib.contextmanager
def server_in(folder: Path, group: Pod | None) -> Iterator[Serving]:
    """The server on core 0, this process on the other ones."""
    mine = os.sched_getaffinity(0)
    server = Serving(folder, 0 if len(mine) > 1 else None, group)
    if len(mine) > 1:
        os.sched_setaffinity(0, mine - {0})
    try:
        yield server
    finally:
        os.sched_setaffinity(0, mine)
        server.end()


def memory_of(server: Serving, group: Pod | None) -> Callable[[], float]:
    return group.used_mib if group is not None else lambda: server.memory_mib("Pss")


def steady(server: Serving, model: str, data: bytes, seconds: float = 3.0) -> LoadReport:
    """One connection in a closed loop: what the model can do."""
    host, port = server.address
    return run_load(LoadPlan(host, port, data, 1, seconds, warm_up_s=0.5), model, "1")


def overload(
    server: Serving, group: Pod | None, model: str, seconds: float, times: float = 4.0
) -> dict[str, float]:
    """``times`` the steady rate in an open loop."""
    data = request(model, tiny_body())
    host, port = server.address
    before = steady(server, model, data)
    rate = times * before.per_second
    load = LoadPlan(host, port, data, CONNECTIONS, seconds, rate=rate, warm_up_s=1.0)
    kept, fresh = Probe(server.url, fresh=False), Probe(server.url, fresh=True)
    memory = Memory(memory_of(server, group))
    hard = run_load(load, model, "1")
    kept_ms, fresh_ms, mib = kept.end(), fresh.end(), memory.end()
    recovery_s = recovery(server, data, 2 * before.service_us.p50)
    # The limit of a latency: each place of the queue, and the run itself, at the steady pace.
    limit_us = (QUEUED + 1) * before.service_us.p50
    half = len(mib) // 2
    return {
        "seconds": seconds,
        "rate": rate,
        "steady_per_s": before.per_second,
        "steady_p50_ms": before.service_us.p50 / 1000,
        "accepted_per_s": hard.per_second,
        "refused": float(hard.errors.get("overloaded", 0)),
        "not_sent": float(hard.not_sent),
        "other_errors": float(sum(hard.errors.values()) - hard.errors.get("overloaded", 0)),
        "without_retry_after": float(hard.without_retry_after),
        "accepted_p99_ms": hard.service_us.p99 / 1000,
        "accepted_p99_of_limit": hard.service_us.p99 / limit_us,
        "refusal_p50_ms": hard.refusal_us.p50 / 1000,
        "refusal_p99_ms": hard.refusal_us.p99 / 1000,
        "refusal_max_ms": hard.refusal_us.max / 1000,
        "load_cpu_of_core": hard.client_cpu,
        "health_asked": float(len(kept_ms) + len(fresh_ms)),
        "health_failed": float(kept.failed + fresh.failed),
        "health_p50_ms": median(kept_ms + fresh_ms),
        "health_max_ms": max(kept_ms + fresh_ms),
        "memory_mib": max(mib),
        "memory_grew_mib": max(mib[half:]) - max(mib[:half] or mib),
        "recovery_s": recovery_s,
    }


def recovery(server: Serving, data: bytes, good_us: float) -> float:
    """Seconds from the end of the load to the first answer that is as fast as before."""
    host, port = server.address
    began = time.perf_counter()
    while time.perf_counter() - began < 10:
        found = run_load(LoadPlan(host, port, data, 1, 2.0, requests=1), "", "1")
        if found.succeeded and found.service_us.p50 <= good_us:
            break
    return time.perf_counter() - began


def beside(server: Serving, seconds: float) -> dict[str, float]:
    """Health beside idle connections, a long body and a long reply."""
    number = b"0.12345678,"
    values = (number * (BODY_MB * 1_000_000 // len(number)))[:-1]
    count = values.count(b",") + 1
    text = b'{"inputs":[{"name":"x","shape":[1,%d],"datatype":"FP32","data":[%b]}]}'
    body = text % (count, values)
    small = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
    took: dict[str, list[float]] = {"body": [], "reply": []}
    failed = 0
    links = {kind: HttpLink(server.url) for kind in took}
    with ExitStack() as stack:
        for link in links.values():  # these clients came before the idle ones
            link.request("GET", "/v2")
            stack.callback(link.close)
        kept = Probe(server.url, fresh=False)
        for number_of in range(IDLE):
            peer = f"127.0.0.{2 + number_of % 2}"
            try:
                idle = socket.create_connection(server.address, 5, source_address=(peer, 0))
            except OSError:
                failed += 1
                continue
            stack.callback(idle.close)
        fresh = Probe(server.url, fresh=True)
        until = time.perf_counter() + seconds

        def ask(kind: str, model: str, data: bytes) -> None:
            nonlocal failed
            link = links[kind]
            while time.perf_counter() < until:
                began = time.perf_counter()
                found = link.request("POST", f"/v2/models/{model}/infer", body=data, timeout_s=60)
                failed += found.status != 200
                took[kind].append((time.perf_counter() - began) * 1000)

        threads = [
            threading.Thread(target=ask, args=("body", "short", body)),
            threading.Thread(target=ask, args=("reply", "long", small)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept_ms, fresh_ms = kept.end(), fresh.end()
    return {
        "idle_connections": float(IDLE),
        "long_bodies": float(len(took["body"])),
        "long_body_p50_ms": median(took["body"]),
        "long_replies": float(len(took["reply"])),
        "long_reply_p50_ms": median(took["reply"]),
        "other_errors": float(failed),
        "health_asked": float(len(kept_ms) + len(fresh_ms)),
        "health_failed": float(kept.failed + fresh.failed),
        "health_p50_ms": median(kept_ms + fresh_ms),
        "health_max_ms": max(kept_ms + fresh_ms),
    }


def run_overload(folder: Path, seconds: float, megabytes: int = 50) -> dict[str, float]:
    """A model of some milliseconds in the pod."""
    with pod(POD_MIB, POD_CPUS) as group:
        with server_in(folder, group) as server:
            server.apply(served("slow", heavy(folder / "slow.onnx", "1", megabytes)))
            found = overload(server, group, "slow", seconds)
        return {**found, **_kills(group)}


def run_beside(folder: Path, seconds: float) -> dict[str, float]:
    with pod(POD_MIB, POD_CPUS) as group:
        with server_in(folder, group) as server:
            server.apply(
                served("short", repeater(folder / "short.onnx", 4)),
                served("long", repeater(folder / "long.onnx", FLOATS)),
            )
            found = beside(server, seconds)
        return {**found, **_kills(group)}


def run_small_pod(
    folder: Path, seconds: float, swaps: int = 50, megabytes: int = 100
) -> dict[str, float]:
    """A model of 100 MB: load, swaps under load, overload."""
    with pod(POD_MIB, POD_CPUS) as group:
        with server_in(folder, group) as server:
            found = swap_heavy(folder, server, swaps, megabytes)
            hard = overload(server, group, "heavy", seconds)
        return {**found, **hard, **_kills(group)}


def _kills(group: Pod | None) -> dict[str, float]:
    if group is None:
        return {}
    return {"oom_kills": float(group.oom_kills()), "pod_peak_mib": group.peak_mib()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Serving under four times its load.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each overload")
    parser.add_argument("--swaps", type=int, default=50, help="of the model of 100 MB")
    parser.add_argument("--only", choices=("overload", "beside", "small_pod"))
    options = parser.parse_args()
    parts: dict[str, Callable[[Path], dict[str, float]]] = {
        "overload": lambda folder: run_overload(folder, options.seconds),
        "beside": lambda folder: run_beside(folder, min(20.0, options.seconds)),
        "small_pod": lambda folder: run_small_pod(folder, options.seconds, options.swaps),
    }
    result: dict[str, object] = {"load_average_before": os.getloadavg()}
    good = True
    for part, measure in parts.items():
        if options.only in (None, part):
            with tempfile.TemporaryDirectory() as name:
                found = measure(Path(name))
            result[part] = found
            good = show(part, found, LIMITS) and good
    result["load_average_after"] = os.getloadavg()
    result["limits"] = {name: f"{how} {limit:g}" for name, (how, limit) in LIMITS.items()}
    print(f"{machine()}\nload before {result['load_average_before']}, after {os.getloadavg()}")
    print(f"written to {write('overload', result)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
