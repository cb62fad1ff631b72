"""A real serving process on a free port, started and stopped by the test."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgefleet.base.network import HttpLink
from edgefleet.protocol.serving import Apply, ModelStatus, ServedModel, ServingStatus, model_status
from edgefleet.protocol.wire import decode, encode, error_from_answer


class ServingProcess:
    """A serving process. ``url`` is set once it is ready."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = folder / "control.sock"
        command = [sys.executable, "-m", "edgefleet.serving", "--listen", "127.0.0.1:0"]
        command += ["--control-socket", str(self.socket), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("http://"), "the serving process did not start"
        self.pid = self._process.pid
        self.control = HttpLink(f"unix:{self.socket}")

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def status(self) -> ServingStatus:
        return decode(self.control.request("GET", "/control/status").body, ServingStatus)

    def apply(self, *models: ServedModel, generation: int = 1) -> ServingStatus:
        """Serve these models and no other. Raises the typed error of the answer."""
        answer = self.control.request(
            "POST",
            "/control/apply",
            body=encode(Apply(generation=generation, models=models)),
            timeout_s=60,
        )
        if answer.status != 200:
            raise error_from_answer(answer.status, answer.body)
        return decode(answer.body, ServingStatus)

    def activate(self, wanted: ServedModel) -> ModelStatus:
        """Serve one model."""
        return self.apply(wanted).models[0]

    def model(self, name: str = "digits") -> ModelStatus:
        """The status of one model."""
        found = model_status(self.status(), name)
        assert found is not None, f"{name} is not served"
        return found

    def kill(self) -> None:
        """Kill the process as a power cut does."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """Stop the process. Returns the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()  # no test leaves a process behind
            self._process.wait()
            raise
        finally:
            self.control.close()
            if self._process.stdout is not None:
                self._process.stdout.close()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[ServingProcess]:
    process = ServingProcess(folder, *options)
    try:
        yield process
    finally:
        process.stop()
