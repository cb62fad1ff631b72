"""Long computations over the whole fleet, in a fork of the hub: check-ins do not wait for them.

The fork has the fleet as it was in one moment, without a copy: the system copies the pages that the
hub changes meanwhile. A thread would read columns and dictionaries while the hub changes them. The
fork has no descriptor of the hub, starts no thread, and ends itself after ``FORK_S`` seconds.
"""

import asyncio
import gc
import os
import signal
import traceback
from collections.abc import Callable
from typing import Final

from edgefleet.base.errors import DeviceError, EdgefleetError, InternalError
from edgefleet.base.readable import wait_readable
from edgefleet.hub.limits import FORK_DEVICES, FORK_S, FORKS_AT_ONCE, FORKS_WAITING
from edgefleet.protocol.wire import encode, error_from_problem, problem

_DONE: Final = b"+"
_REFUSED: Final = b"-"
_PIECE_BYTES: Final = 1 << 20


class Forks:
    """Runs computations that only read. A small fleet is computed in the hub itself."""

    def __init__(self, devices: Callable[[], int]) -> None:
        """``devices`` counts the fleet."""
        self._devices = devices
        self._waiting = 0
        self._places = asyncio.Semaphore(FORKS_AT_ONCE)

    async def run(self, work: Callable[[], bytes]) -> bytes:
        """The result of ``work``, which must change nothing and touch no descriptor or lock.

        Raises the EdgefleetError of ``work``; DeviceError ``overloaded`` if too many wait, or if
        the fork takes too long; InternalError for any other end of the fork.
        """
        if self._devices() < FORK_DEVICES:
            return work()
        if self._waiting >= FORKS_WAITING:
            raise DeviceError("overloaded", f"{FORKS_WAITING} computations wait, the limit.")
        self._waiting += 1
        try:
            async with self._places:
                readable, pid = _fork(work)
                output = await asyncio.shield(asyncio.to_thread(_output, readable, pid))
        finally:
            self._waiting -= 1
        return _result(output)


def _fork(work: Callable[[], bytes]) -> tuple[int, int]:
    """Start the fork. Returns a descriptor for its output, and its process id."""
    readable, writable = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(readable)
        os.close(writable)
        raise DeviceError("overloaded", "The system can start no process.") from None
    if pid == 0:
        _compute(work, writable)
    os.close(writable)
    return readable, pid


def _compute(work: Callable[[], bytes], writable: int) -> None:
    """Write the result of ``work``. Ends this process."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(int(FORK_S))
        gc.disable()
        output = os.dup2(writable, 0)
        os.close(1)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        _write(output, _outcome(work))
    finally:
        os._exit(0)


def _outcome(work: Callable[[], bytes]) -> bytes:
    try:
        return _DONE + work()
    except EdgefleetError as error:
        return _REFUSED + encode(problem(error))
    except Exception:  # noqa: BLE001 - the hub answers with a defect
        os.write(2, traceback.format_exc().encode())
        return b""


def _write(output: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(output, rest) :]


def _output(readable: int, pid: int) -> bytes | None:
    """All that the fork writes. None if it takes too long. Waits for its end."""
    output = bytearray()
    try:
        while wait_readable(readable, FORK_S):
            piece = os.read(readable, _PIECE_BYTES)
            if not piece:
                return bytes(output)
            output += piece
        return None
    finally:
        os.close(readable)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _result(output: bytes | None) -> bytes:
    if output is None:
        raise DeviceError("overloaded", f"The computation took longer than {FORK_S:g} s.")
    kind, result = output[:1], output[1:]
    if kind == _REFUSED:
        raise error_from_problem(result)
    if kind != _DONE:
        raise InternalError("internal", "The computation failed; see the log of the hub.")
    return result
