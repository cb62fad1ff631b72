"""``python -m edgefleet.hub.file_reader_child``: reads uploaded files for the hub, with limits.

The process imports the readers once and never reads an uploaded file itself: for each file it forks
a process with limits on memory and time, so a hostile file reaches neither the hub nor the reading
of the next file. Requests and answers are lines of JSON, see ``hub.file_reader``.
"""

import contextlib
import importlib
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Final

from edgefleet.base.errors import EdgefleetError
from edgefleet.hub.file_reading import ReadEnd, ReadFile, ReadResult
from edgefleet.hub.limits import READER_IDLE_S
from edgefleet.hub.release_files import check_golden, check_lineage_file, check_variant
from edgefleet.protocol.wire import Problem, decode, encode, error_from_problem, problem

_RESULT_BYTES: Final = 64 << 10
_TOO_MUCH: Final = 3  # exit code: Python reached the limit on memory
_UNDECODABLE: Final = 4  # exit code: refused by protobuf
_OUTPUT: Final = 1
_NICE: Final = 10


def main() -> int:
    """Answer requests until standard input ends, or none comes for ``READER_IDLE_S``."""
    _import_readers()
    waiting = select.poll()
    waiting.register(0, select.POLLIN)
    while waiting.poll(READER_IDLE_S * 1000):
        line = sys.stdin.buffer.readline()
        if not line:
            break
        result = _read(decode(line, ReadFile))
        sys.stdout.buffer.write(encode(result) + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _import_readers() -> None:
    """Import once what each reading needs. Without the ``onnx`` package each reading says so."""
    with contextlib.suppress(ImportError):
        importlib.import_module("onnx")  # only here, not in the hub


def _read(request: ReadFile) -> ReadResult:
    """Read one file in a process of its own."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        _work(request, writable)
    os.close(writable)
    try:
        output = _output(readable, child, request.wall_s)
    finally:
        os.close(readable)
    _, status, used = os.wait4(child, 0)
    took_half = used.ru_maxrss << 10 > request.memory_bytes // 2
    return _result(output, os.waitstatus_to_exitcode(status), took_half=took_half)


def _output(readable: int, child: int, wall_s: float) -> bytes | None:
    """All output of the child. None if it was ended: too slow, too long, or the hub is gone."""
    output = bytearray()
    until = time.monotonic() + wall_s
    waiting = select.poll()
    waiting.register(readable, select.POLLIN)
    waiting.register(0, 0)  # reports the end of the hub
    while True:
        ready = waiting.poll(max(0.0, until - time.monotonic()) * 1000)
        if not ready or any(handle == 0 for handle, _ in ready):
            os.kill(child, signal.SIGKILL)
            return None
        piece = os.read(readable, _RESULT_BYTES)
        output += piece
        if not piece or len(output) > _RESULT_BYTES:
            return bytes(output)


def _result(output: bytes | None, code: int, *, took_half: bool) -> ReadResult:
    """The result by the end of the process.

    ``took_half``: of its memory. Then a lack of memory was reported as damage, or crashed it.
    """
    if output is None or code == -signal.SIGXCPU:
        return ReadResult(end=ReadEnd.TIME)
    if code in (_TOO_MUCH, -signal.SIGKILL) or (code != 0 and took_half):
        return ReadResult(end=ReadEnd.MEMORY)
    if code not in (0, _UNDECODABLE):
        return ReadResult(end=ReadEnd.CRASH, detail=_code_text(code))
    if not output:
        return ReadResult(end=ReadEnd.DONE)
    return ReadResult(end=ReadEnd.REFUSED, problem=_problem(output))


def _problem(output: bytes) -> Problem:
    return problem(error_from_problem(output))


def _code_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _work(request: ReadFile, writable: int) -> None:
    """Check the file in this process, which ends. Writes a Problem if the file is refused."""
    code = 1
    try:
        os.dup2(writable, _OUTPUT)
        os.closerange(_OUTPUT + 2, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        os.close(0)
        _give_way()
        _limit(request)
        code = _check(request)
    finally:
        os._exit(code)


def _give_way() -> None:
    """Let the hub run first, and let the system end this process first if memory is short."""
    os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _limit(request: ReadFile) -> None:
    cpu_s = max(1, int(request.cpu_s))
    resource.setrlimit(resource.RLIMIT_DATA, (request.memory_bytes, request.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _check(request: ReadFile) -> int:
    manifest, path = request.manifest, Path(request.path)
    try:
        match request.part:
            case "variant":
                variant = manifest.variants[request.index]
                check_variant(variant, path, f"variants[{request.index}]")
            case "golden":
                check_golden(manifest, path)
            case "lineage":
                check_lineage_file(manifest, path)
    except EdgefleetError as error:
        os.write(_OUTPUT, encode(problem(error)))
        return _UNDECODABLE if _is_undecodable(error) else 0
    except (MemoryError, RecursionError):
        return _TOO_MUCH
    return 0


def _is_undecodable(error: BaseException | None) -> bool:
    """Whether protobuf could not decode the file. Its package is imported with onnx only."""
    while error is not None and type(error).__name__ != "DecodeError":
        error = error.__cause__
    return error is not None


if __name__ == "__main__":
    sys.exit(main())
