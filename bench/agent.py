"""The cost of an idle device agent: memory, and CPU time to start. Writes bench/out/agent.json.

Each start is a real agent process without a model, enrolled at a tiny hub on loopback that answers
its check-ins. CPU time is read when the first check-in arrives, and includes the interpreter,
imports, enrolment and boot. Memory (VmRSS) is read after ``IDLE_CHECKINS`` more check-ins.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median

from result_file import machine, write

STARTS = 7
IDLE_CHECKINS = 20
INTERVAL_S = 0.1
LIMIT_RSS_MIB = 35.0
LIMIT_START_CPU_MS = 200.0


class TinyHub:
    """Answers enrolment and check-ins, and signals each check-in."""

    def __init__(self) -> None:
        self.arrived: SimpleQueue[str] = SimpleQueue()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                hub.arrived.put(self.path)
                body = json.dumps(hub.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> dict[str, object]:
        if path.endswith("/enrol"):
            return {
                "device": "bench",
                "token": "efd1.0.bench.tag",
                "checkin_url": self.url,
                "interval_s": INTERVAL_S,
            }
        return {"interval_s": INTERVAL_S}

    def wait(self, path: str, process: subprocess.Popen[bytes]) -> None:
        while True:
            try:
                if self.arrived.get(timeout=30) == path:
                    return
            except Empty:
                sys.exit(f"no {path} within 30 s; the agent's exit code: {process.poll()}")


def cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def one_start(hub: TinyHub, folder: Path) -> tuple[float, float]:
    """(idle RSS in MiB, CPU to the first check-in in ms) of one agent."""
    trust = folder / "trust.txt"
    trust.write_text(b64encode(bytes(range(32))).decode() + "\n")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "edgefleet.agent", "run"),
            *("--hub", hub.url, "--claim", "bench", "--name", "bench", "--profile", "generic_x86"),
            *("--data-dir", str(folder / "data"), "--trust", str(trust)),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        hub.wait("/device/v1/checkin", process)
        started = cpu_ms(process.pid)
        for _ in range(IDLE_CHECKINS):
            hub.wait("/device/v1/checkin", process)
        return rss_mib(process.pid), started
    finally:
        process.terminate()
        process.wait(30)


def main() -> int:
    hub = TinyHub()
    runs: list[tuple[float, float]] = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(one_start(hub, Path(folder)))
    result = {
        "idle_rss_mib": round(median(rss for rss, _ in runs), 1),
        "start_cpu_ms": round(median(cpu for _, cpu in runs), 1),
        "idle_rss_mib_runs": [round(rss, 1) for rss, _ in runs],
        "start_cpu_ms_runs": [round(cpu, 1) for _, cpu in runs],
        "limits": {"idle_rss_mib": LIMIT_RSS_MIB, "start_cpu_ms": LIMIT_START_CPU_MS},
    }
    path = write("agent", result)
    print(f"{'idle agent, no model':28}{'median':>9}{'least':>9}{'most':>9}{'limit':>9}")
    table = [
        ("resident memory, MiB", [rss for rss, _ in runs], LIMIT_RSS_MIB),
        ("CPU to first check-in, ms", [cpu for _, cpu in runs], LIMIT_START_CPU_MS),
    ]
    for name, values, limit in table:
        figures = (median(values), min(values), max(values), limit)
        print(f"{name:28}" + "".join(f"{value:9.1f}" for value in figures))
    print(f"{machine()}\nwritten to {path}")
    kept = result["idle_rss_mib"] < LIMIT_RSS_MIB and result["start_cpu_ms"] < LIMIT_START_CPU_MS
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
