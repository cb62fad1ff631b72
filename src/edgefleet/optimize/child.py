"""Runs a part of the work in a child process with limits: a tool that crashes ends only the child.

The child is ``python -m MODULE MEMORY_BYTES``. It reads a request as JSON from standard input and
prints its answer as JSON as the last line. Its exit code is 1 for a typed error, which is the last
line of standard error as a Problem.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from edgefleet.base.cgroup import memory_room
from edgefleet.base.errors import DeviceError, EdgefleetError, PublisherError
from edgefleet.optimize.limits import CHILD_LEFT_BYTES, CHILD_REQUEST_BYTES, CHILD_TIME_S
from edgefleet.protocol.wire import Wire, decode, encode, error_from_problem, problem

Request = TypeVar("Request", bound=Wire)
Answer = TypeVar("Answer", bound=Wire)

_DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG
_NO_EDGEFLEET: Final = b"(ModuleNotFoundError: No module named 'edgefleet')"
"""The end of Python's last line for ``-m edgefleet.module`` without edgefleet."""


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """The limits of one child: bytes of memory of its own, and seconds."""

    memory_bytes: int
    time_s: float = CHILD_TIME_S


def free_limits(time_s: float = CHILD_TIME_S) -> ChildLimits:
    """The memory that is free on this machine, less some for other programs."""
    room = memory_room()
    free = room.free_bytes if room else 1 << 40
    return ChildLimits(max(CHILD_LEFT_BYTES, free - CHILD_LEFT_BYTES), time_s)


def run_child(
    module: str,
    request: Wire,
    answer: type[Answer],
    limits: ChildLimits,
    *,
    what: str,
    python: Path | None = None,
) -> Answer:
    """Run the module on the request. ``what`` names the work in messages, such as ``Measuring``.

    ``python`` runs it; it must have edgefleet. None: the Python of this process.

    Raises the typed errors of the child. Raises PublisherError ``step_failed`` if it ends without
    an answer, takes longer or needs more memory than it may; DeviceError ``runtime_missing`` if
    ``python`` cannot be started, or does not have edgefleet.
    """
    command = [str(python or sys.executable), "-m", module, str(limits.memory_bytes)]
    try:
        child = subprocess.run(
            command,
            input=encode(request),
            capture_output=True,
            timeout=limits.time_s,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # the order of sets is that of all runs
        )
    except OSError as error:
        raise DeviceError(
            "runtime_missing",
            f"{what} needs the Python {command[0]}, which cannot be started: {error.strerror}.",
            field="python",
            hint="Name the program python of a virtual environment.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PublisherError(
            "step_failed", f"{what} took longer than {limits.time_s:.0f} s.", field="time"
        ) from error
    lines = child.stdout.splitlines()
    if child.returncode == 0 and lines:
        return decode(lines[-1], answer, code="answer_malformed")
    errors = child.stderr.strip().splitlines()
    if child.returncode == 1 and errors and errors[-1].startswith(b"{"):
        raise error_from_problem(errors[-1])
    if errors and errors[-1].endswith(_NO_EDGEFLEET):
        raise DeviceError(
            "runtime_missing",
            f"{what} needs edgefleet in the Python {command[0]}, which does not have it.",
            field="python",
            hint=f"Run `{command[0]} -m pip install 'edgefleet[optimize]'`.",
        )
    raise _ended(child.returncode, errors, limits, what)


def _ended(code: int, errors: list[bytes], limits: ChildLimits, what: str) -> PublisherError:
    last = errors[-1].decode(errors="replace") if errors else ""
    words = b"\n".join(errors[-20:])
    short = b"MemoryError" in words or b"bad_alloc" in words or b"llocate memory" in words
    if short or code == -signal.SIGKILL:
        return PublisherError(
            "step_failed",
            f"{what} needs more than {limits.memory_bytes >> 20:,} MiB of memory.",
            field="memory",
            hint="Free memory on this machine, or give less calibration data.",
        )
    name = f"signal {-code}" if code < 0 else f"exit code {code}"
    return PublisherError("step_failed", f"{what} ended with {name}. {last}".strip())


def serve_child(request: type[Request], work: Callable[[Request], Wire]) -> int:
    """The main function of a child. Returns its exit code."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        given = decode(sys.stdin.buffer.read(CHILD_REQUEST_BYTES), request)
        answer = work(given)
    except EdgefleetError as error:
        sys.stderr.write(f"\n{encode(problem(error)).decode()}\n")
        return 1
    sys.stdout.write(f"\n{encode(answer).decode()}\n")
    sys.stdout.flush()
    return 0
