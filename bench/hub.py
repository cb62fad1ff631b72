"""The cost of a check-in at the hub, beside nginx. Writes bench/out/hub.json.

``heartbeat_ratio`` is the CPU time of an authenticated heartbeat at the check-in listener of a hub,
divided by that of nginx, which answers the same POST with fixed bytes and drops its body. In
``durable10_ratio`` each tenth check-in has an outcome, which is answered once it is on the disk.
Both servers run on core 0 and get the same load of wrk in turns, over ``CONNECTIONS`` connections;
the CPU time is that of all processes of a server, and a figure is the median of ``ROUNDS`` pairs.
The database has finished rollouts and two outcomes for each device, as in ``bench/hub_history.py``,
which also measures ``history_slope_us``.

``--full`` has 1,000,000 devices. Needs nginx and wrk (Debian: nginx-light, wrk).
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from hub_history import RUNS_NEW, SITES, build, slope
from result_file import show, write

from edgefleet.base.entropy import SystemEntropy
from edgefleet.hub.datadir import DataDir
from edgefleet.protocol.version import PROTOCOL
from edgefleet.security.credentials import DeviceIdentity, issue_device_token
from edgefleet.sim.virtual.scenario import NEW

QUICK: Final = 20_000
FULL: Final = 1_000_000
CONNECTIONS: Final = 64
ROUNDS: Final = 5
SEQ_OF_LOAD: Final = 1_000  # the numbers of one load; a pass over all devices needs one
LIMITS: Final = {
    "heartbeat_ratio": ("<=", 1.5),
    "durable10_ratio": ("<=", 2.5),
    "history_slope_us": ("<=", 0.001),
    "refused": ("<=", 0.0),
}
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
NGINX: Final = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; default_type application/json;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{{"interval_s":30.0}}'; }} }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one load. ``us`` is the CPU time of the server for each answer."""

    us: float
    per_s: float
    p99_ms: float
    refused: int


def descendants(pid: int) -> Iterator[int]:
    """The process and all processes that it started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from descendants(int(child))


def cpu_s(pid: int) -> float:
    """User and system time of a process and its descendants."""
    ticks = 0
    for one in descendants(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK_S


@contextmanager
def started(arguments: list[str], core: int) -> Generator[int]:
    """A server as a process on one core. It gets SIGTERM at the end."""
    process = subprocess.Popen(["taskset", "-c", str(core), *arguments])
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def nginx(folder: Path) -> Generator[Server]:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(folder=folder, port=port))
    arguments = ["nginx", "-p", str(folder), "-c", str(settings), "-e", str(folder / "error.log")]
    with started(arguments, 0) as pid:
        answering(port)
        yield Server(pid, port)


@contextmanager
def hub(folder: Path) -> Generator[Server]:
    arguments = [sys.executable, "-m", "edgefleet.hub", "--data-dir", str(folder)]
    arguments += ["--listen", "127.0.0.1:0", "--checkin-listen", "127.0.0.1:0"]
    (folder / "hub.json").unlink(missing_ok=True)
    with started(arguments, 0) as pid:
        deadline = time.monotonic() + 300
        while not (folder / "hub.json").exists():
            if time.monotonic() > deadline:
                sys.exit("the hub did not start in 300 s")
            time.sleep(0.05)
        port: int = json.loads((folder / "hub.json").read_bytes())["checkin_port"]
        answering(port)
        yield Server(pid, port)


def answering(port: int) -> None:
    """Wait until the port accepts a connection."""
    for _ in range(200):
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def load(
    server: Server, tokens: Path, seconds: int, *, first_seq: int, every: int, skip: int = 0
) -> Load:
    """Check-ins of all devices in turn. ``every``: each so many check-ins has an outcome.

    The first ``skip`` devices have their turn last.
    """
    script = Path(__file__).with_name("checkins.lua")
    before = cpu_s(server.pid)
    done = subprocess.run(
        [
            *("wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)),
            *(f"http://127.0.0.1:{server.port}", "--", str(tokens), str(first_seq)),
            *(str(PROTOCOL), str(RUNS_NEW), str(every), str(SITES), NEW, str(skip)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"wrk failed: {done.stdout}{done.stderr}")
    used = cpu_s(server.pid) - before
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if found["broken"]:
        sys.exit(f"{found['broken']} connections or reads failed")
    answers = found["answers"]
    return Load(used * 1e6 / answers, answers / found["seconds"], found["p99_ms"], found["refused"])


def write_tokens(folder: Path, devices: int, path: Path) -> None:
    """The credentials of the devices of a data folder, one a line."""
    data = DataDir(folder)
    secret = data.hub_secret(SystemEntropy())
    data.release()
    with path.open("w") as out:
        for row in range(devices):
            out.write(issue_device_token(secret, DeviceIdentity(row, f"d{row:07}")) + "\n")


def warm_up(ours: Server, tokens: Path, devices: int) -> None:
    """One check-in of each device, as a device checks in again and again."""
    seq, left = SEQ_OF_LOAD, float(devices)
    while left > 0:
        seconds = 4
        done = load(ours, tokens, seconds, first_seq=seq, every=0, skip=devices - int(left))
        left -= done.per_s * seconds


def pairs(ours: Server, reference: Server, tokens: Path, seconds: int) -> dict[str, float]:
    """Loads of both servers in turns."""
    found: dict[str, list[float]] = {}
    first_seq, refused = 10 * SEQ_OF_LOAD, 0
    for _ in range(ROUNDS):
        base = load(reference, tokens, seconds, first_seq=first_seq, every=0)
        for part, every in (("heartbeat", 0), ("durable10", 10)):
            first_seq += SEQ_OF_LOAD
            mine = load(ours, tokens, seconds, first_seq=first_seq, every=every)
            refused += mine.refused
            found.setdefault(f"{part}_ratio", []).append(mine.us / base.us)
            found.setdefault(f"{part}_us", []).append(mine.us)
            found.setdefault(f"{part}_per_s", []).append(mine.per_s)
            found.setdefault(f"{part}_p99_ms", []).append(mine.p99_ms)
        found.setdefault("nginx_us", []).append(base.us)
    middles = {name: round(median(values), 3) for name, values in found.items()}
    return {**middles, "refused": float(refused)}


def main() -> int:
    reading = argparse.ArgumentParser(description=__doc__)
    reading.add_argument("--full", action="store_true", help="a million devices")
    reading.add_argument("--devices", type=int, help=f"instead of {QUICK:,}")
    reading.add_argument("--seconds", type=int, default=3, help="of each load")
    asked = reading.parse_args()
    for tool in ("nginx", "wrk"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing (Debian: apt-get install nginx-light wrk)")
    devices = asked.devices or (FULL if asked.full else QUICK)
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        folder, tokens = Path(root, "hub"), Path(root, "tokens")
        build(folder, devices)
        write_tokens(folder, devices, tokens)
        reference = stack.enter_context(nginx(Path(root, "nginx")))
        ours = stack.enter_context(hub(folder))
        warm_up(ours, tokens, devices)
        found = pairs(ours, reference, tokens, asked.seconds)
    found = {"devices": float(devices), **found, "history_slope_us": slope()["history_slope_us"]}
    write("hub", {**found, "limits": {name: limit for name, (_, limit) in LIMITS.items()}})
    return 0 if show("hub", found, LIMITS) else 1


if __name__ == "__main__":
    sys.exit(main())
