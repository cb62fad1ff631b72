"""Swaps of a release under load. Writes bench/out/swaps.json.

Two releases of one model take turns, as fast as they load, while clients ask in a closed loop. The
load before the swaps is the reference. ``python bench/swaps.py`` makes 1,000 swaps of a small model
(about two minutes). The exit code is 1 if a limit is exceeded. bench/overload.py swaps a model of
100 MB in a small pod.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from result_file import machine, show, write
from serving_models import Serving, heavy, small
from serving_requests import request, served, tiny_body

from edgefleet.base.errors import EdgefleetError
from edgefleet.client.inference.load import LoadPlan, run_load
from edgefleet.client.inference.load_report import LoadReport
from edgefleet.protocol.serving import ServedRelease

CONNECTIONS = 4
SERVER_CORE = 0
STEADY_S = 10.0
WARM_SWAPS = 20  # before memory is read for the first time
LIMITS: dict[str, tuple[str, float]] = {
    "failed": ("<=", 0),
    "refused": ("<=", 0),
    "p99_of_steady": ("<=", 2.0),
    "memory_grew_mib": ("<=", 5.0),
}


def loaded(
    server: Serving, data: bytes, connections: int, work: Callable[[], None]
) -> tuple[int, list[LoadReport]]:
    """Do ``work`` while clients ask. Returns the requests that failed, and the loads."""
    over = threading.Event()
    reports: list[LoadReport] = []

    def ask() -> None:
        host, port = server.address
        while not over.is_set():
            reports.append(run_load(LoadPlan(host, port, data, connections, 5.0), "", ""))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        work()
    finally:
        over.set()
        thread.join()
    return sum(sum(one.errors.values()) for one in reports), reports


def swap(
    server: Serving,
    releases: tuple[ServedRelease, ServedRelease],
    swaps: int,
    steady_s: float = STEADY_S,
    model: str = "model",
    warm: int = WARM_SWAPS,
) -> dict[str, float]:
    """``swaps`` swaps of the two releases under load."""
    data = request(model, tiny_body())
    host, port = server.address
    server.apply(served(model, releases[0]))
    for number in range(min(swaps, warm)):
        server.apply(served(model, releases[1 - number % 2]))
    before = run_load(LoadPlan(host, port, data, CONNECTIONS, steady_s, warm_up_s=1.0), model, "")
    memory = server.memory_mib("Pss")
    took: list[float] = []
    refusals: list[str] = []

    def work() -> None:
        for number in range(swaps):
            began = time.perf_counter()
            try:
                server.attempt(served(model, releases[1 - number % 2]))
            except EdgefleetError as error:
                refusals.append(str(error))
                print(f"swap {number} was refused: {error}", flush=True)
            took.append(time.perf_counter() - began)

    failed, reports = loaded(server, data, CONNECTIONS, work)
    time.sleep(0.5)  # the last release is freed
    after = server.memory_mib("Pss")
    answered = sum(one.succeeded for one in reports)
    p99 = sum(one.service_us.p99 * one.succeeded for one in reports) / max(1, answered)
    return {
        "swaps": float(swaps - len(refusals)),
        "refused": float(len(refusals)),
        "swap_p50_ms": sorted(took)[len(took) // 2] * 1000,
        "answered": float(answered),
        "failed": float(failed),
        "steady_p99_ms": before.service_us.p99 / 1000,
        "swap_load_p99_ms": p99 / 1000,
        "swap_load_max_ms": max(one.service_us.max for one in reports) / 1000,
        "p99_of_steady": p99 / max(1.0, before.service_us.p99),
        "memory_before_mib": memory,
        "memory_after_mib": after,
        "memory_grew_mib": after - memory,
    }


def swap_small(
    folder: Path, server: Serving, swaps: int, steady_s: float = STEADY_S
) -> dict[str, float]:
    """A model of 0.6 MB that runs on the event loop."""
    releases = small(folder / "s1.onnx", "1"), small(folder / "s2.onnx", "2")
    return swap(server, releases, swaps, steady_s)


def swap_heavy(folder: Path, server: Serving, swaps: int, megabytes: int) -> dict[str, float]:
    """A model whose releases have processes of their own. The figures are named ``swap_*``."""
    releases = (
        heavy(folder / "h1.onnx", "1", megabytes),
        heavy(folder / "h2.onnx", "2", megabytes),
    )
    found = swap(server, releases, swaps, steady_s=3.0, model="heavy", warm=1)
    return {f"swap_{name.removeprefix('swap_')}": value for name, value in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Swaps of a release under load.")
    parser.add_argument("--swaps", type=int, default=1000)
    options = parser.parse_args()
    before = os.getloadavg()
    mine = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        server = Serving(Path(name), SERVER_CORE)
        if len(mine) > 1:
            os.sched_setaffinity(0, mine - {SERVER_CORE})
        try:
            found = swap_small(Path(name), server, options.swaps)
        finally:
            server.end()
    good = show("swaps", found, LIMITS)
    result = {"load_average_before": before, "load_average_after": os.getloadavg(), **found}
    print(f"{machine()}\nload before {before}, after {os.getloadavg()}")
    print(f"written to {write('swaps', result)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
