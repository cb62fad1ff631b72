"""Supervises the serving process: starts it, finds it after a restart, switches it, stops it.

The process runs in its own session and survives a killed agent. The next agent finds it by its
control socket. The pid file identifies it if the socket does not answer. A process whose control
API is of another version counts as one that does not answer: the next ``apply`` replaces it.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO, Final

from edgefleet.agent import limits
from edgefleet.agent.effect import Apply, GiveTruth, WantedModel, WantedRelease, WantedShadow
from edgefleet.agent.log import LOGGER
from edgefleet.agent.run_files import RunFiles
from edgefleet.agent.slots import GOLDEN, MANIFEST, MODEL, path
from edgefleet.base.clock import Clock
from edgefleet.base.errors import DeviceError, EdgefleetError, NetworkError, OperatorError
from edgefleet.base.exits import MemoryKills, exit_code
from edgefleet.base.network import Answer, HttpLink
from edgefleet.base.readable import wait_readable
from edgefleet.base.storage import Storage, open_file
from edgefleet.protocol import serving
from edgefleet.protocol.run_marks import marked_models
from edgefleet.protocol.serving import (
    ControlVersion,
    ServedModel,
    ServedRelease,
    ServedShadow,
    ServingStatus,
    check_control_api,
)
from edgefleet.protocol.serving_health import HUNG, OUT_OF_MEMORY, UNKNOWN, end_cause
from edgefleet.protocol.wire import decode, encode, error_from_answer

SOCKET: Final = "serving.sock"
PID: Final = "serving.pid"
LOG: Final = "serving.log"
MARKS: Final = "serving.running"  # beside the socket, see protocol.run_marks


class Supervisor:
    """Not thread-safe. Calls ``ended`` from another thread when the process ends."""

    def __init__(
        self,
        storage: Storage,
        command: Sequence[str],
        clock: Clock,
        ended: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._command = tuple(command)
        self._clock = clock
        self._ended = ended
        self._files = RunFiles(storage)
        self._child: subprocess.Popen[bytes] | None = None
        self._files.find(lambda: self._read_pid() is not None)
        self._socket = self._files.locate(SOCKET)
        if len(os.fsencode(self._socket)) > limits.SOCKET_PATH_BYTES:
            raise OperatorError(
                "setting_invalid",
                f"The socket path {self._socket} is longer than {limits.SOCKET_PATH_BYTES} bytes.",
                field="data_dir",
                hint="Give a data folder with a shorter path.",
            )
        self._link = HttpLink(f"unix:{self._socket}")
        self._watched: set[int] = set()
        self._answered = False  # this agent has had an answer of the process
        self._ran: tuple[str, ...] = ()
        self._hung = False  # the process was ended, as it did not answer
        self._alive: int | None = None  # the process that runs, as far as this agent knows
        self._ends: list[str] = []  # causes of ends that this agent did not order
        self._kills = MemoryKills()
        self._silence: EdgefleetError | None = None  # why the last request for it failed
        self._stopping = threading.Event()
        self._closed = threading.Event()

    def status(self) -> tuple[ServingStatus | None, bool]:
        """The status of the process (None if it does not answer), and whether it is alive."""
        status = self._ask()
        if status is not None:
            self._watch(status)
            return status, True
        return None, self._pid() is not None

    def ran(self) -> tuple[str, ...]:
        """The models that ran in the process when it ended, if it ended since the last call."""
        if self._pid() is None:
            self._read_marks()
        ran, self._ran = self._ran, ()
        return ran

    def ends(self) -> tuple[str, ...]:
        """The causes of the ends of the process by itself since the last call, in order.

        An end because it did not answer is one of them. See ``protocol.serving_health``.
        """
        self._pid()
        ends, self._ends = tuple(self._ends), []
        return ends

    def hung(self) -> bool:
        """Whether the process was ended, since the last call, because it did not answer."""
        hung, self._hung = self._hung, False
        return hung

    def apply(self, effect: Apply) -> ServingStatus:
        """Make the process serve these models. Starts the process if it does not run.

        A process that does not answer is ended, see ``_post``. Raises DeviceError, NetworkError
        or the error of the serving process.
        """
        if effect.anew:
            LOGGER.warning("the serving process is started again: a request does not end")
            self._answered = False  # no model that it serves is to blame
            self._ends.append(HUNG)
            self.stop(limits.SERVING_END_S)
        if effect.swap:
            LOGGER.info("The serving process is of another version, and is started again.")
            self.stop()
        status = self._read_status() or self._start()
        self._watch(status)
        request = serving.Apply(
            generation=effect.generation, models=tuple(self._served(one) for one in effect.models)
        )
        try:
            answer = self._post(encode(request), served=bool(status.models))
        except NetworkError as error:
            if error.code == "timeout":
                LOGGER.warning("the serving process is ended: %s", error)
                self._end_hung()
            raise
        if answer.status != 200:
            raise error_from_answer(answer.status, answer.body)
        status = decode(answer.body, ServingStatus, code="answer_malformed")
        if status.generation != effect.generation:
            raise DeviceError(
                "inference_failed",
                f"The serving process reports generation {status.generation} of its models, not "
                f"{effect.generation}.",
            )
        self._watch(status)
        return status

    def kill(self) -> None:
        """Send SIGKILL to the process, if it runs, and start no other. Safe in another thread."""
        self._closed.set()
        pid = self._pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def give_truth(self, effect: GiveTruth) -> None:
        """Give labels to the process. Raises DeviceError or NetworkError if it has none of them."""
        answer = self._link.request(
            "POST",
            "/control/truth",
            headers={"Content-Type": "application/json"},
            body=encode(serving.Truths(truth=effect.truth)),
            timeout_s=limits.CONTROL_S,
        )
        if answer.status != 200:
            raise error_from_answer(answer.status, answer.body)

    def stop(self, patience_s: float | None = None) -> None:
        """Stop the process: SIGTERM, then SIGKILL. No effect if it does not run."""
        pid = self._pid()
        self._link.close()
        self._alive = None
        if pid is None:
            return
        self._stopping.set()
        first_s = limits.SERVING_STOP_S if patience_s is None else patience_s
        for sign, wait_s in ((signal.SIGTERM, first_s), (signal.SIGKILL, limits.CLOSE_S)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
            if self._gone(pid, wait_s):
                break
        self._files.remove(PID)

    def _served(self, wanted: WantedModel) -> ServedModel:
        return ServedModel(
            model=wanted.model,
            confirmed=self._release(wanted.confirmed),
            trial=self._release(wanted.trial),
            isolation=wanted.isolation,
            shadow=self._shadow(wanted.shadow),
        )

    def _shadow(self, wanted: WantedShadow | None) -> ServedShadow | None:
        release = None if wanted is None else self._release(wanted.release)
        if wanted is None or release is None:
            return None
        comparison = wanted.release.installed.golden.comparison
        return ServedShadow(release=release, share=wanted.share, comparison=comparison)

    def _release(self, wanted: WantedRelease | None) -> ServedRelease | None:
        if wanted is None:
            return None
        return ServedRelease(
            release=wanted.installed.release,
            variant=wanted.installed.variant,
            quality=wanted.installed.quality,
            artifact_path=self._storage.locate(path(wanted.installed.model, wanted.slot, MODEL)),
            golden_path=self._storage.locate(path(wanted.installed.model, wanted.slot, GOLDEN)),
            manifest_path=self._storage.locate(path(wanted.installed.model, wanted.slot, MANIFEST)),
            manifest_sha256=wanted.installed.manifest_sha256,
        )

    def _post(self, body: bytes, *, served: bool) -> Answer:
        """Send the Apply. Raises NetworkError ``timeout`` after ACTIVATE_S.

        Also if a process that ``served`` a model answers no status, MISSED_PROBES times in a row:
        it loads no large model that would block it.
        """
        arrived: SimpleQueue[Answer | EdgefleetError] = SimpleQueue()

        def send() -> None:
            with contextlib.closing(HttpLink(f"unix:{self._socket}")) as link:
                try:
                    answer = link.request(
                        "POST",
                        "/control/apply",
                        headers={"Content-Type": "application/json"},
                        body=body,
                        timeout_s=limits.ACTIVATE_S,
                    )
                except EdgefleetError as error:
                    arrived.put(error)
                else:
                    arrived.put(answer)

        threading.Thread(target=send, daemon=True).start()
        missed = 0
        while missed < limits.MISSED_PROBES:
            try:
                answer = arrived.get(timeout=limits.CONTROL_S if served else None)
            except Empty:
                missed = 0 if self._ask() is not None else missed + 1
                continue
            if isinstance(answer, EdgefleetError):
                raise answer
            return answer
        raise NetworkError("timeout", f"The serving process answered no status, {missed} times.")

    def _ask(self) -> ServingStatus | None:
        self._silence = None
        if not os.path.exists(self._socket):  # noqa: PTH110 - cheaper than Path, once a second
            return None
        try:
            answer = self._link.request("GET", "/control/status", timeout_s=limits.CONTROL_S)
            version = decode(answer.body, ControlVersion, code="answer_malformed")
            check_control_api(version.api)
            return decode(answer.body, ServingStatus, code="answer_malformed")
        except EdgefleetError as error:
            self._silence = error
            self._link.close()
            return None

    def _read_status(self) -> ServingStatus | None:
        """The status, with retries while the process is alive: one late answer must not end it."""
        for _ in range(limits.MISSED_PROBES):
            if (status := self._ask()) is not None:
                return status
            if self._pid() is None:
                break
        return None

    def _start(self) -> ServingStatus:
        """Start the process and wait for its status. Raises DeviceError, NetworkError."""
        if self._pid() is not None:  # alive, but without an answer that this agent understands
            reason = self._silence or f"It has no control socket {self._socket}."
            LOGGER.warning("the serving process is replaced: %s", reason)
            self._end_hung()
        self._read_marks()
        self._stopping.clear()
        self._files.renew(SOCKET)
        self._socket = self._files.locate(SOCKET)
        self._link.close()
        self._link = HttpLink(f"unix:{self._socket}")
        self._child = self._spawn()
        self._alive = self._child.pid
        self._kills.follow(self._alive)
        birth = _birth(self._child.pid)
        self._files.write(PID, f"{self._child.pid} {birth}".encode())
        until = self._clock.monotonic() + limits.SERVING_START_S
        while self._clock.monotonic() < until:
            if (status := self._ask()) is not None:
                return status
            try:
                code = self._child.wait(timeout=0.02)
            except subprocess.TimeoutExpired:
                continue
            self._note_end()
            raise DeviceError(
                "inference_failed", f"The serving process ended with {code}: {self._last_words()}"
            )
        self.stop()
        raise NetworkError(
            "timeout", f"The serving process did not start within {limits.SERVING_START_S:g} s."
        )

    def _end_hung(self) -> None:
        """End the process, and remember the models that run in it."""
        self._hung = self._answered
        if self._hung:
            self._ends.append(HUNG)
        self._read_marks()
        self.stop(limits.SERVING_END_S)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        if self._closed.is_set():
            raise DeviceError("inference_failed", "The agent has stopped.")
        with self._open_log() as output:
            return subprocess.Popen(
                [*self._command, "--control-socket", self._socket],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _open_log(self) -> BinaryIO:
        """The log of the process. It goes nowhere if its file cannot be written."""
        log = Path(self._files.locate(LOG))
        try:
            if log.exists() and log.stat().st_size > limits.SERVING_LOG_BYTES:
                log.replace(log.with_suffix(".log.1"))
            return open_file(log, "ab")
        except OSError:
            return Path(os.devnull).open("ab")

    def _last_words(self) -> str:
        log = Path(self._files.locate(LOG))
        try:
            with open_file(log, "rb") as file:
                file.seek(max(0, log.stat().st_size - 4096))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            lines = []
        return next((line.strip() for line in reversed(lines) if line.strip()), "no word")

    def _pid(self) -> int | None:
        """The process, if it is alive. Notes its end otherwise."""
        pid = self._read_pid()
        if self._alive is not None and pid != self._alive and not _birth(self._alive):
            self._note_end()
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        return pid

    def _read_pid(self) -> int | None:
        """The process in the pid file, if it is alive, else the child, if that is alive.

        The start time detects a reused pid.
        """
        data = self._files.read(PID) or b""
        number, _, birth = data.decode(errors="replace").partition(" ")
        if not number.isdecimal() or _birth(int(number)) != birth or not birth:
            child = self._child
            return child.pid if child is not None and _birth(child.pid) else None
        return int(number)

    def _note_end(self) -> None:
        """Note the end of the process that was alive, with its cause. It is not noted again."""
        ended, self._alive = self._alive, None
        if ended is None:
            return
        cause = UNKNOWN
        if self._child is not None and self._child.pid == ended:
            cause = end_cause(exit_code(self._child, limits.CLOSE_S))
        if cause == "SIGKILL" and self._kills.grew():
            cause = OUT_OF_MEMORY
        self._ends.append(cause)

    def _read_marks(self) -> None:
        """Record the models that ran in a process that has ended, if it ever answered."""
        if not self._answered:
            return
        self._answered = False
        data = self._files.read(MARKS)
        if data is not None:
            self._ran = marked_models(data)

    def _watch(self, status: ServingStatus) -> None:
        """Call ``ended`` when the process or one of its workers ends, child or not."""
        self._answered = True
        if self._alive != status.pid:
            self._alive = status.pid
            self._kills.follow(status.pid)
        else:
            self._kills.update()
        if self._pid() != status.pid:  # its file is damaged, or could not be written
            self._files.write(PID, f"{status.pid} {_birth(status.pid)}".encode())
        workers = (one.worker for one in status.models if one.worker is not None)
        for pid in {status.pid, *workers} - self._watched:
            try:
                handle = os.pidfd_open(pid)
            except OSError:
                continue  # ended, or a kernel without pidfds: the next probe detects the end
            self._watched.add(pid)
            threading.Thread(target=self._wait, args=(pid, handle), daemon=True).start()

    def _wait(self, pid: int, handle: int) -> None:
        try:
            wait_readable(handle)
        finally:
            os.close(handle)
        self._watched.discard(pid)
        if not self._stopping.is_set():
            self._ended()

    def _gone(self, pid: int, patience_s: float) -> bool:
        """Wait for the process to end. Reaps a child. Returns whether it ended."""
        if self._child is not None and self._child.pid == pid:
            try:
                self._child.wait(timeout=patience_s)
            except subprocess.TimeoutExpired:
                return False
            self._child = None
            return True
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return True
        try:
            return wait_readable(handle, patience_s)
        finally:
            os.close(handle)


def _birth(pid: int) -> str:
    """The start time of the process in kernel ticks. Empty for a dead or zombie process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
