"""The programs of the demo: started, checked, and always ended by their process ids."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from edgefleet.agent.supervisor import SOCKET, Supervisor
from edgefleet.base.clock import SystemClock
from edgefleet.base.errors import InternalError, NetworkError, OperatorError
from edgefleet.base.network import HttpLink
from edgefleet.base.storage import FolderStorage
from edgefleet.cli.demo.limits import END_TIMEOUT_S, LOG_LINES, START_TIMEOUT_S
from edgefleet.protocol.serving import ServingStatus
from edgefleet.protocol.wire import decode
from edgefleet.sim.load.fleet import FleetReport

AGENT: Final = "edgefleet.agent"
SITE: Final = "demo"  # of the real devices


class Program:
    """One child process with a log file. ``read_output`` reads its standard output instead."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        read_output: bool = False,
    ) -> None:
        self.name = name
        self.log = folder / "logs" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = self.log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if read_output else self._file,
            stderr=self._file,
            env=plain_environment(),
            # Ctrl-C goes to the demo, which ends its programs in the right order.
            start_new_session=True,
        )
        self._output_changed = threading.Condition()
        self._last_line = b""
        self._reader: threading.Thread | None = None
        if output := self._process.stdout:
            self._reader = threading.Thread(target=self._read, args=[output], daemon=True)
            self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id, which is valid until ``end``."""
        return self._process.pid

    def line(self) -> bytes:
        """The newest line of its output. Waits for the first line.

        Raises InternalError ``demo_failed`` if it exits or prints nothing within the timeout.
        """
        with self._output_changed:
            self._output_changed.wait_for(
                lambda: self._last_line or self._process.poll() is not None, START_TIMEOUT_S
            )
            line = self._last_line
        if not line:
            self.check()
            raise InternalError(
                "demo_failed",
                f"{self.name} was not ready after {START_TIMEOUT_S:g} s.{self._tail()}",
            )
        return line

    def check(self) -> None:
        """Raise InternalError with the end of its log if it has exited."""
        if (code := self._process.poll()) is not None:
            raise InternalError(
                "demo_failed", f"{self.name} exited with code {code}.{self._tail()}"
            )

    def end(self) -> None:
        """Send SIGTERM, then SIGKILL after a timeout. ``line`` still works afterwards."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader:
            self._reader.join()
        self._file.close()

    def _read(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                with self._output_changed:
                    self._last_line = line.strip() or self._last_line
                    self._output_changed.notify_all()
        self._process.wait()
        with self._output_changed:
            self._output_changed.notify_all()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "".join(f"\n  {line}" for line in (f"Last lines of {self.log}:", *lines))


class Agent(Program):
    """A real agent with its own serving process."""

    def __init__(
        self, name: str, profile: str, *, hub: str, claim: str, trust: Path, folder: Path,
        module: str = AGENT,
    ) -> None:  # fmt: skip
        self._reserved_port = reserve_port()
        self.port: int = self._reserved_port.getsockname()[1]
        self._data = folder / name
        claim_file = folder / f"{name}.claim"
        claim_file.touch(mode=0o600)
        claim_file.write_text(claim)
        arguments = [
            "run",
            *("--hub", hub, "--claim-file", str(claim_file)),
            *("--name", name, "--profile", profile),
            *("--data-dir", str(self._data), "--trust", str(trust)),
            *("--serve", f"127.0.0.1:{self.port}", "--label", f"site={SITE}"),
        ]
        super().__init__(name, module, arguments, folder)

    def serving(self) -> ServingStatus | None:
        """The status of its serving process. None if there is no such process."""
        link = HttpLink(f"unix:{self._data / SOCKET}")
        try:
            answer = link.request("GET", "/control/status", timeout_s=2.0)
            return decode(answer.body, ServingStatus, code="answer_malformed")
        except NetworkError:
            return None
        finally:
            link.close()

    def end(self) -> None:
        super().end()
        # A killed agent leaves its serving process running, by design.
        with contextlib.suppress(OperatorError):  # the folder never had one
            Supervisor(FolderStorage(self._data), (), SystemClock(), lambda: None).stop()
        self._reserved_port.close()


class FleetProcess(Program):
    """The simulated devices."""

    def __init__(
        self, count: int, *, hub: str, claims: Path, trust: Path,
        fields: Mapping[str, Path], seed: int, interval_s: float, folder: Path,
    ) -> None:  # fmt: skip
        arguments = [
            *("--hub", hub, "--claims", str(claims), "--trust", str(trust)),
            *("--devices", str(count), "--seed", str(seed), "--interval", str(interval_s)),
        ]
        for model, field in fields.items():
            arguments += ["--field", f"{model}={field}"]
        super().__init__("fleet", "edgefleet.sim.load", arguments, folder, read_output=True)

    def report(self) -> FleetReport:
        """The newest report. Raises InternalError if there is none."""
        return decode(self.line(), FleetReport, code="internal")


class Programs(contextlib.ExitStack):
    """All running programs. Closing ends them, newest first."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[Program] = []

    def add(self, program: Program) -> None:
        self._running.append(program)
        self.callback(program.end)

    def check(self) -> None:
        """Raise InternalError if a program has exited."""
        for program in self._running:
            program.check()


def reserve_port() -> socket.socket:
    """Reserve a free loopback port while the socket is open.

    Another process can listen on the port: this socket does not, and both set SO_REUSEADDR.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def plain_environment() -> dict[str, str]:
    """The environment without the settings of other commands."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EDGEFLEET_")}
