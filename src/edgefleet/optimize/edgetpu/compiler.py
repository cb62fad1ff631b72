"""The Edge TPU compiler: runs it where it is installed, and reads its log.

The compiler (``edgetpu_compiler``, https://coral.ai/docs/edgetpu/compiler/) is a program for
x86-64 Linux without a licence to redistribute it. Where it is missing, the step is skipped with a
sentence, and the coverage by the table of operators is all that is known.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.wire import Wire

PROGRAM: Final = "edgetpu_compiler"
MAPPED: Final = "Mapped to Edge TPU"
_TIMEOUT_S: Final = 180
_WORDS_CHARS: Final = 500
_VERSION: Final = re.compile(r"^Edge TPU Compiler version (\S+)", re.MULTILINE)
_SUBGRAPHS: Final = re.compile(r"^Number of Edge TPU subgraphs: (\d+)", re.MULTILINE)
_TOTAL: Final = re.compile(r"^Total number of operations: (\d+)", re.MULTILINE)
_MAPPED: Final = re.compile(r"^Number of operations that will run on Edge TPU: (\d+)", re.MULTILINE)
_ROW: Final = re.compile(
    r"^([A-Za-z][A-Za-z0-9_]*)[ \t]{2,}(\d+)[ \t]{2,}(\S.*?)[ \t]*$", re.MULTILINE
)


class LogRow(Wire, frozen=True, kw_only=True):
    """Operators of one type with one status of the compiler."""

    kind: str
    count: int
    status: str


class CompilerLog(Wire, frozen=True, kw_only=True):
    """The compiler's report on a model. ``subgraphs`` is 0 if its log does not say it.

    ``mapped`` operators run on the Edge TPU. Without option ``-s`` the compiler may print rows of
    the others only.
    """

    version: str
    subgraphs: int
    total: int
    mapped: int
    rows: tuple[LogRow, ...]


class Compiled(Wire, frozen=True, kw_only=True):
    """The compiled file, or the sentence why there is none."""

    path: str = ""
    log: CompilerLog | None = None
    skipped: str = ""


Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def read_log(text: str) -> CompilerLog:
    """Read the compiler's output or its log file. Raises PublisherError ``step_failed``.

    The table of operators is in the output with option ``-s``, and always in the log file.
    """
    rows = tuple(
        LogRow(kind=kind, count=int(count), status=status)
        for kind, count, status in _ROW.findall(text)
    )
    version = _VERSION.search(text)
    if version is None or not rows:
        raise PublisherError(
            "step_failed",
            f"The output of {PROGRAM} has no table of operators: "
            f"{' '.join(text.split())[-_WORDS_CHARS:] or 'it is empty'}",
            field="edgetpu",
        )
    total, subgraphs, mapped = (known.search(text) for known in (_TOTAL, _SUBGRAPHS, _MAPPED))
    return CompilerLog(
        version=version[1],
        subgraphs=int(subgraphs[1]) if subgraphs else 0,
        total=int(total[1]) if total else sum(one.count for one in rows),
        mapped=int(mapped[1]) if mapped else sum(one.count for one in rows if one.status == MAPPED),
        rows=rows,
    )


def compiled(model: Path, folder: Path, *, run: Run | None = None) -> Compiled:
    """Compile ``model`` into ``folder``. Skipped where the compiler is not installed.

    Raises PublisherError ``step_failed`` if the compiler fails or maps no operator.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        return Compiled(
            skipped=f"{PROGRAM} is not installed, so the file is not compiled for the Edge TPU: "
            "its operators would run on the CPU of the device."
        )
    result = (run or _run)((program, "-s", "-t", str(_TIMEOUT_S), "-o", str(folder), str(model)))
    made = folder / f"{model.stem}_edgetpu.tflite"
    if result.returncode or not made.is_file():
        words = " ".join(f"{result.stdout} {result.stderr}".split())[-_WORDS_CHARS:]
        raise PublisherError("step_failed", f"{PROGRAM} failed: {words}", field="edgetpu")
    log = read_log(result.stdout)
    if not log.mapped:
        raise PublisherError(
            "step_failed",
            f"{PROGRAM} mapped none of {log.total} operators: {log.rows[0].kind} "
            f"has the status {log.rows[0].status!r}.",
            field="edgetpu",
            hint="Make a full-integer variant with a fixed batch of 1.",
        )
    return Compiled(path=str(made), log=log)


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=2 * _TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise PublisherError(
            "step_failed", f"{PROGRAM} took longer than {2 * _TIMEOUT_S} s.", field="edgetpu"
        ) from error
