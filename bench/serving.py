"""The cost of serving on a device. Writes bench/out/serving.json.

The server has one core, the load the other one. Each figure that is a ratio has its reference in
the same run, and both alternate: the in-process rate (decode, run, encode, no server) for the tiny
model, and a server that only receives (bench/serving_drain.py) for the body of 602 kB. CPU is
that of the server process by the kernel's count, so that other programs on the machine change it
less than the rates.

``python bench/serving.py`` needs about a minute and a half; ``--overload-s 60`` is the full
overload. The exit code is 1 if a limit is exceeded.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
from overload import overload as four_times
from overload import server_in
from result_file import machine, show, write
from serving_floor import decode_run_encode
from serving_models import Process, Serving, heavy, image, tiny
from serving_requests import request, served, tiny_body

from edgefleet.protocol.serving import ServedRelease

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1
ROUNDS = 3
ROUND_S = 2.0
SHARE_S = 1.0  # of the reference in a process
HEAVY_MB = 100
LIMITS: dict[str, tuple[str, float]] = {
    "rest_tiny_ratio": (">=", 0.6),
    "rest_tiny_cpu_us": ("<=", 30.0),
    "rest_binary_602k_of_drain": ("<=", 1.8),
    "private_mib": ("<=", 70.0),
    "cold_start_cpu_s": ("<=", 0.5),
    "resident_of_100_mb": ("<=", 1.25),
    "swap_peak_mib": ("<=", 330.0),
    "overload_accepted_p99_of_limit": ("<=", 2.0),
    "overload_refusal_p99_ms": ("<=", 5.0),
    "overload_health_max_ms": ("<=", 100.0),
    "overload_recovery_s": ("<=", 1.0),
}


def in_process(release: ServedRelease, body: bytes, seconds: float) -> float:
    """Requests a second of decode, run and encode in this process, on the server's core.

    The load core is as busy as under load: two cores of a machine may be threads of one.
    """
    os.sched_setaffinity(0, {LOAD_CORE})
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        return _in_process(release, body, seconds)
    finally:
        busy.kill()
        busy.wait()
        os.sched_setaffinity(0, {SERVER_CORE, LOAD_CORE})


def _in_process(release: ServedRelease, body: bytes, seconds: float) -> float:
    answer = decode_run_encode(release.artifact_path)
    began = time.process_time()
    for done in count(1):
        answer(body)
        if done % 500 == 0 and time.process_time() - began >= seconds:
            break
    return done / (time.process_time() - began)  # of CPU time: a neighbour does not count


def load(
    server: Process, asked: bytes | list[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """The answers of the load, and the CPU of the server in microseconds an answer."""
    with tempfile.NamedTemporaryFile() as file:
        for data in [asked] if isinstance(asked, bytes) else asked:
            file.write(len(data).to_bytes(8, "big") + data)
        file.flush()
        host, port = server.address
        command = [sys.executable, str(HERE / "serving_load.py"), host, str(port), file.name]
        before_s = server.cpu_s()
        done = subprocess.run(
            [*command, str(connections), str(seconds), str(LOAD_CORE)],
            capture_output=True,
            check=False,
            text=True,
        )
        if done.returncode:
            sys.exit(f"the load failed: {done.stderr}")
        cpu_s = server.cpu_s() - before_s
    found = json.loads(done.stdout)
    found["cpu_us"] = cpu_s * 1e6 / found["answers"]
    found["rate"] = found["answers"] / found["seconds"]
    # The rate of a core that the server has for itself: what a neighbour used does not count.
    found["rate_of_cpu"] = found["answers"] / max(cpu_s, 1e-9)
    return found


def hot_path(folder: Path) -> dict[str, object]:
    """The tiny model as JSON, and the image as a binary tensor."""
    small, picture = tiny(folder / "tiny.onnx"), image(folder / "image.onnx")
    body = tiny_body()
    tiny_request = [request("tiny", tiny_body(client)) for client in range(16)]
    pixels = np.random.default_rng(1).random(3 * 224 * 224, np.float32).tobytes()
    image_request = request("image", pixels, "Inference-Header-Content-Length: 0\r\n")
    server = Serving(folder, SERVER_CORE)
    drain = Process([sys.executable, str(HERE / "serving_drain.py")], SERVER_CORE)
    try:
        server.apply(served("tiny", small), served("image", picture))
        load(server, tiny_request, 16, 0.5)
        rounds: list[dict[str, dict[str, float] | float]] = [
            {
                "in_process": in_process(small, body, SHARE_S),
                "tiny": load(server, tiny_request, 16, ROUND_S),
                "tiny_alone": load(server, tiny_request, 1, ROUND_S / 2),
                "image": load(server, image_request, 4, ROUND_S),
                "drain": load(drain, image_request, 4, ROUND_S),
            }
            for _ in range(ROUNDS)
        ]
    finally:
        server.end()
        drain.end()
    return {"rounds": rounds, **_hot_figures(rounds)}


def _hot_figures(rounds: list[dict[str, dict[str, float] | float]]) -> dict[str, float]:
    def of(name: str, key: str) -> list[float]:
        return [dict(one[name])[key] for one in rounds]  # type: ignore[call-overload]

    floors = [float(one["in_process"]) for one in rounds]  # type: ignore[arg-type]
    by_rate = [a / b for a, b in zip(of("tiny", "rate"), floors, strict=True)]
    by_cpu = [a / b for a, b in zip(of("tiny", "rate_of_cpu"), floors, strict=True)]
    drained = [a / b for a, b in zip(of("image", "cpu_us"), of("drain", "cpu_us"), strict=True)]
    return {
        "rest_tiny_ratio": median(by_rate),
        "rest_tiny_ratio_of_cpu": median(by_cpu),
        "rest_tiny_per_s": median(of("tiny", "rate")),
        "in_process_per_s": median(floors),
        "rest_tiny_cpu_us": median(of("tiny", "cpu_us")),
        "rest_tiny_p50_us": median(of("tiny", "p50")),
        "rest_tiny_p99_us": median(of("tiny", "p99")),
        "rest_tiny_alone_p50_us": median(of("tiny_alone", "p50")),
        "rest_tiny_alone_cpu_us": median(of("tiny_alone", "cpu_us")),
        "rest_binary_602k_cpu_us": median(of("image", "cpu_us")),
        "drain_602k_cpu_us": median(of("drain", "cpu_us")),
        "rest_binary_602k_of_drain": median(drained),
    }


def start(folder: Path) -> dict[str, float]:
    """CPU from the start of the process to its first answer, and memory with the tiny model."""
    release = tiny(folder / "tiny.onnx")
    cold: list[float] = []
    for _ in range(ROUNDS):
        server = Serving(folder, SERVER_CORE)
        try:
            server.apply(served("tiny", release))
            load(server, request("tiny", tiny_body()), 1, 0.0)
            cold.append(server.cpu_s())
            load(server, request("tiny", tiny_body()), 16, 0.5)
            private = server.private_mib()
            resident = server.memory_mib("Rss")
        finally:
            server.end()
    return {"cold_start_cpu_s": median(cold), "private_mib": private, "rss_mib": resident}


class Peak:
    """The highest proportional memory of a process tree while it is watched."""

    def __init__(self, server: Process) -> None:
        self._server = server
        self._stop = threading.Event()
        self.mib = 0.0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> float:
        self._stop.set()
        self._thread.join()
        return self.mib

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.mib = max(self.mib, self._server.memory_mib("Pss"))


def memory(folder: Path) -> dict[str, float]:
    """The resident cost of a model of 100 MB, and the peak of a swap of two."""
    first = heavy(folder / "h1.onnx", "1", HEAVY_MB)
    second = heavy(folder / "h2.onnx", "2", HEAVY_MB)
    size_mib = first.variant.artifact.size_bytes / (1 << 20)
    server = Serving(folder, SERVER_CORE)
    try:
        server.apply(served("small", tiny(folder / "tiny.onnx")))
        server.apply()
        before = server.memory_mib("Pss")
        server.apply(served("heavy", first))
        loaded = server.memory_mib("Pss")
        peak = Peak(server)
        server.apply(served("heavy", second))
        time.sleep(0.2)
        highest = peak.end()
        after = server.memory_mib("Pss")
    finally:
        server.end()
    return {
        "model_mib": size_mib,
        "resident_of_100_mb": (loaded - before) / size_mib,
        "swap_peak_mib": highest,
        "swap_after_mib": after,
    }


def overload(folder: Path, seconds: float) -> dict[str, float]:
    """Four times the rate of a model of some milliseconds. See bench/overload.py, in a pod."""
    with server_in(folder, None) as server:
        server.apply(served("slow", heavy(folder / "slow.onnx", "1", 50)))
        found = four_times(server, None, "slow", seconds)
    return {f"overload_{name}": value for name, value in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="The cost of serving on a device.")
    parser.add_argument("--overload-s", type=float, default=6.0, help="seconds of overload")
    parser.add_argument("--only", choices=("hot_path", "start", "memory", "overload"))
    options = parser.parse_args()
    parts: dict[str, Callable[[Path], dict[str, object]]] = {
        "hot_path": hot_path,
        "start": lambda folder: dict(start(folder)),
        "memory": lambda folder: dict(memory(folder)),
        "overload": lambda folder: dict(overload(folder, options.overload_s)),
    }
    result: dict[str, object] = {"load_average": os.getloadavg()}
    failed = False
    for part, measure in parts.items():
        if options.only not in (None, part):
            continue
        with tempfile.TemporaryDirectory() as name:
            found = measure(Path(name))
        result[part] = found
        figures = {name: one for name, one in found.items() if isinstance(one, float)}
        failed = not show(part, figures, LIMITS) or failed
    result["limits"] = {name: f"{how} {limit:g}" for name, (how, limit) in LIMITS.items()}
    print(f"{machine()}\nload {os.getloadavg()}\nwritten to {write('serving', result)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
