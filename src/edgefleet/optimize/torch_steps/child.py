"""Runs a job in a child process under a Python that has PyTorch."""

# pyright: reportMissingImports=false

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from edgefleet.base.errors import DeviceError, PublisherError, error_from_code
from edgefleet.base.texts import shortened
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.torch_steps.job import Answer, Done, Job
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.limits import DETAIL_CHARS

TIME_LIMIT_S: Final = 6 * 3600.0
_PACKAGE: Final = "edgefleet.optimize.torch_steps"
_NEEDED: Final = "import torch, onnx, onnxscript, edgefleet.optimize.torch_steps.job"
_LAST_LINES: Final = 20
_LINE_CHARS: Final = 4_096
_PROBE_S: Final = 300.0


def run_job(
    job: Job,
    example: Arrays,
    python: Path,
    *,
    time_limit_s: float = TIME_LIMIT_S,
    on_line: Callable[[str], None] | None = None,
) -> Done:
    """Run the job. ``on_line`` gets each line that the publisher's functions print.

    Raises PublisherError: the child's own error, or ``step_failed`` with its last words;
    DeviceError ``runtime_missing`` if that Python lacks a package.
    """
    made = Path(job.made)
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".torch-", dir=made.parent) as name:
        folder = Path(name).absolute()
        arrays: dict[str, Any] = dict(example)
        np.savez(folder / "example.npz", **arrays)
        asked = msgspec.structs.replace(
            job, example=str(folder / "example.npz"), made=str(folder / "made.onnx")
        )
        (folder / "job.json").write_bytes(encode(asked))
        command = [str(python), "-m", _PACKAGE, str(folder / "job.json"), str(folder / "out.json")]
        last = _run(command, time_limit_s, on_line or _ignore)
        if not (folder / "out.json").exists():
            check_python(python)
            raise _failed(f"The training process ended early: {last or 'it printed nothing'}")
        outcome = decode((folder / "out.json").read_bytes(), Answer).outcome
        if not isinstance(outcome, Done):
            raise error_from_code(outcome.code, outcome.message, hint=outcome.hint)
        (folder / "made.onnx").replace(made)
        return outcome


def check_python(python: Path) -> None:
    """Raises DeviceError ``runtime_missing`` if that Python lacks a package of these steps."""
    try:
        tried = subprocess.run(
            [str(python), "-c", _NEEDED], capture_output=True, text=True, timeout=_PROBE_S,
            check=False,
        )  # fmt: skip
        words = tried.stderr.strip().rpartition("\n")[2] if tried.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        words = str(error)
    if words:
        raise DeviceError(
            "runtime_missing",
            f"{python} cannot run training steps: {words}",
            hint="Install there: pip install edgefleet torch onnx onnxscript torch-pruning; or "
            "name another Python with python=.",
        )


def _run(command: list[str], time_limit_s: float, on_line: Callable[[str], None]) -> str:
    """Run the command, at most so long. Returns its last lines."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise DeviceError(
            "runtime_missing",
            f"{command[0]} cannot be started: {error.strerror}.",
            hint="Name a Python that has PyTorch with python=.",
        ) from error
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(process)

    alarm = threading.Timer(time_limit_s, end)
    alarm.start()
    last = deque[str](maxlen=_LAST_LINES)
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checkers
        while line := process.stdout.readline(_LINE_CHARS):
            last.append(line.rstrip("\n"))
            on_line(last[-1])
        process.wait()
    finally:
        alarm.cancel()
        _kill(process)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if late.is_set():
        raise _failed(
            f"The training ran longer than {time_limit_s:.0f} s.",
            hint="Train for fewer epochs, or allow more time.",
        )
    return shortened(" ".join(last), DETAIL_CHARS)


def _kill(process: subprocess.Popen[str]) -> None:
    """End the child and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _ignore(line: str) -> None:
    del line


def _failed(message: str, hint: str | None = None) -> PublisherError:
    return PublisherError("step_failed", message, hint=hint)
