"""The process of a worker, as the serving process sees it."""

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from edgefleet.base.exits import MemoryKills, exit_code
from edgefleet.protocol.serving_health import HUNG, OUT_OF_MEMORY, end_cause
from edgefleet.serving.limits import INLINE_US, WORKER_EXIT_S, WORKER_STOP_S

current_core: Final = ctypes.PyDLL(None).sched_getcpu
"""The core that runs this thread."""


def set_policy(task: int, policy: int) -> None:
    """Set the scheduling policy of a thread or process. Raises OSError where it may not."""
    os.sched_setscheduler(task, policy, os.sched_param(0))


@cache
def may_rise() -> bool:
    """True if a thread may return from SCHED_IDLE to its usual priority. A thread tries it.

    CAP_SYS_NICE allows it, or a limit RLIMIT_NICE of 20 (sched(7)).
    """
    done: list[bool] = []

    def attempt() -> None:
        with contextlib.suppress(OSError):
            set_policy(0, os.SCHED_IDLE)
            set_policy(0, os.SCHED_OTHER)
            done.append(True)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(done)


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A started worker, the channel to it, and the descriptor of their shared memory."""

    child: "subprocess.Popen[bytes]"
    channel: socket.socket
    memory: int
    cores: frozenset[int]
    kills: MemoryKills

    @classmethod
    def start(cls, bodies: int, *, patient: bool) -> Self:
        """Start a worker that reads request bodies from the memory ``bodies``.

        A patient worker loads its release when a core has no other work, and where the system lets
        a thread have its usual priority back, it also starts so: another process of that priority
        takes a core from the requests of other models for up to a slice of the scheduler.
        """
        rises = patient and may_rise()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("edgefleet-worker")
        passed = theirs.fileno(), memory, bodies
        arguments = [str(number) for number in (*passed, int(patient) + rises)]
        try:
            _limit_wait(mine, INLINE_US)
            child = subprocess.Popen(
                [sys.executable, "-m", "edgefleet.serving.worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=passed,
            )
            if rises:
                set_policy(child.pid, os.SCHED_IDLE)
        except BaseException:
            mine.close()
            os.close(memory)
            raise
        finally:
            theirs.close()
        kills = MemoryKills()
        kills.follow(child.pid)
        return cls(child, mine, memory, frozenset(os.sched_getaffinity(0)), kills)

    @property
    def pid(self) -> int:
        return self.child.pid

    def run_on(self, core: int | None) -> None:
        """Let the thread that runs the model use only this core, or any core with None."""
        with contextlib.suppress(OSError):  # the worker has ended, or the system forbids it
            os.sched_setaffinity(self.child.pid, self.cores if core is None else (core,))

    def kill(self) -> None:
        self.child.kill()

    def close(self) -> None:
        """Close the channel: the worker ends."""
        self.channel.close()
        os.close(self.memory)

    def reap(self) -> None:
        """Wait until the worker has ended. Kills it after ``WORKER_STOP_S``."""
        try:
            self.child.wait(WORKER_STOP_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def exit_cause(self, *, killed: bool) -> str:
        """How the worker has ended, as a cause of ``protocol.serving_health``.

        ``killed``: the serving process ended it.
        """
        if killed:
            return HUNG
        cause = end_cause(exit_code(self.child, WORKER_EXIT_S))
        return OUT_OF_MEMORY if cause == "SIGKILL" and self.kills.grew() else cause

    def exit_text(self) -> str:
        """How the worker has ended, as the end of a sentence."""
        code = self.child.poll()
        if code is None:
            return "closed its channel."
        if code >= 0:
            return f"ended with {code}."
        if -code == signal.SIGKILL:
            return "was killed (SIGKILL), as the kernel does when memory runs out."
        return f"crashed ({signal.Signals(-code).name})."


def _limit_wait(channel: socket.socket, us: int) -> None:
    """Let a blocking ``recv`` wait so long. A poll would be one more call, and sets a timer."""
    option = socket.SOL_SOCKET, socket.SO_RCVTIMEO
    longs = len(channel.getsockopt(*option, 16)) == struct.calcsize("@ll")
    channel.setsockopt(*option, struct.pack("@ll" if longs else "=qq", *divmod(us, 1_000_000)))
