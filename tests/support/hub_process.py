"""A real hub in its own process, with a folder of the test, on free ports."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.readable import wait_readable
from edgefleet.cli.demo.processes import reserve_port
from edgefleet.client.hub import HubClient

START_S = 120.0  # a machine may be busy, and time is not under test
STOP_S = 20.0


class HubProcess:
    """Starts at once. The ports stay the same over any number of ``kill`` and ``start``."""

    def __init__(
        self,
        data_dir: Path,
        *,
        interval_s: float = 60.0,
        tick_s: float = 0.05,
        fault: str = "",
        reserve_ports: bool = True,
        **options: float,
    ) -> None:
        """``fault`` is Python that runs in the hub's process before it starts.

        Without ``reserve_ports`` the hub chooses its own ports, as at a first start.
        """
        self.data_dir = data_dir
        self._held = [reserve_port() for _ in range(2)] if reserve_ports else []
        self._fault = fault
        self._options = {"interval-s": interval_s, "tick-s": tick_s}
        self._options |= {name.replace("_", "-"): value for name, value in options.items()}
        self.log = data_dir.with_name(f"{data_dir.name}.log")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, and wait until both listeners accept requests."""
        program = (
            f"{self._fault}\nfrom edgefleet.hub.__main__ import main\nraise SystemExit(main())"
        )
        started = ["-c", program] if self._fault else ["-m", "edgefleet.hub"]
        command = [sys.executable, *started, "--data-dir", str(self.data_dir)]
        ports = [held.getsockname()[1] for held in self._held] or [0, 0]
        for name, port in zip(("--listen", "--checkin-listen"), ports, strict=True):
            command += [name, f"127.0.0.1:{port}"]
        for name, value in self._options.items():
            command += [f"--{name}", str(value)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        ended = os.pidfd_open(self.process.pid)
        try:
            deadline = time.monotonic() + START_S
            while not self._is_up(self.process.pid):
                if wait_readable(ended, 0.02) or time.monotonic() > deadline:
                    self.process.kill()
                    raise AssertionError(f"the hub did not start: {self.log.read_text()}")
        finally:
            os.close(ended)

    def _is_up(self, pid: int) -> bool:
        said = self.said()
        if said.get("pid") == pid:
            return True
        if not said or can_write(self.data_dir):
            return False
        try:  # the file of the last hub remains
            return self.client().health().status == "ok"
        except EdgefleetError:
            return False

    def said(self) -> dict[str, Any]:
        """The content of ``hub.json``. Empty if the file does not exist yet."""
        try:
            return dict(json.loads((self.data_dir / "hub.json").read_text()))
        except FileNotFoundError:
            return {}

    @property
    def url(self) -> str:
        return str(self.said()["url"])

    @property
    def checkin_url(self) -> str:
        return str(self.said()["checkin_url"])

    @property
    def token(self) -> str:
        return (self.data_dir / "operator.token").read_text().strip()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self) -> HubClient:
        """A new operator connection."""
        return HubClient(self.url, self.token)

    def kill(self) -> None:
        """Kill the hub as a power cut does, without a flush."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """Stop the hub as an operator does. Returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def end(self) -> None:
        """Stop the hub for good."""
        try:
            self.stop()
        finally:
            for held in self._held:
                held.close()


def can_write(folder: Path) -> bool:
    """True if the disk of ``folder`` is neither full nor read-only."""
    disk = os.statvfs(folder)
    return disk.f_bavail > 0 and not disk.f_flag & os.ST_RDONLY


@contextmanager
def running_hub(
    data_dir: Path, *, fault: str = "", reserve_ports: bool = True, **options: float
) -> Iterator[HubProcess]:
    """A hub for the length of a test."""
    hub = HubProcess(data_dir, fault=fault, reserve_ports=reserve_ports, **options)
    try:
        yield hub
    finally:
        hub.end()
