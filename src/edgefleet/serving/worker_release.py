"""A release in a worker process: requests to it, and its end."""

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from edgefleet.base.errors import DeviceError, EdgefleetError, error_from_code
from edgefleet.protocol.release import Datatype
from edgefleet.protocol.serving import ServedRelease
from edgefleet.protocol.wire import encode
from edgefleet.serving.active_release import Inferred, ReleaseEnded, is_idle
from edgefleet.serving.backlog import Backlog
from edgefleet.serving.body_memory import BodyMemory
from edgefleet.serving.class_names import ClassNames
from edgefleet.serving.declared import DeclaredInputs, batch_of
from edgefleet.serving.limits import (
    KEPT_BYTES,
    QUEUED,
    RETIRE_S,
    WORKER_LOAD_S,
    WORKER_PATIENT_LOAD_S,
    WORKER_RUN_S,
)
from edgefleet.serving.row_wise import RowWise
from edgefleet.serving.run_times import RunTimes, size_class
from edgefleet.serving.runtime import QuantisedTensor, Tensor
from edgefleet.serving.stats import Stats, memory_kib
from edgefleet.serving.threads import thread_count
from edgefleet.serving.worker_channel import (
    MESSAGE_BYTES,
    PLANS,
    RUN_COST,
    Failed,
    Load,
    Loaded,
    Made,
    Message,
    Run,
    SharedArea,
    decode_message,
    encode_message,
    end_of,
)
from edgefleet.serving.worker_process import WorkerProcess, current_core

# The event loop is told of answers only while it awaits one: otherwise each answer that ``infer``
# waits for would wake it, too. It is always told of the end of the worker.
_ENDS: Final = select.EPOLLRDHUP
_ANSWERS: Final = select.EPOLLIN | select.EPOLLRDHUP


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An inference that waits for the worker, or runs in it."""

    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    future: "asyncio.Future[Inferred]"
    size: int
    deadline_ns: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """The message for a request, and the views of the shared memory for its inputs.

    No view is needed for text, which is written already, and for a tensor in a request body.
    """

    message: bytes
    views: Sequence[Tensor | None]


class WorkerRelease:
    """A release of ``model`` in a worker. ``on_end`` is called once if the worker ends by itself.

    The worker runs one inference at a time; the others wait here. The event loop waits for a fast
    model that is idle, as it does for one that runs on the event loop: a task would cost more time
    than the worker. It waits up to a millisecond, which the kernel rounds up to its ticks, and
    leaves its core to the worker: that needs no wake-up, and the cache has the request. The answer
    of a slower model is awaited.
    """

    @classmethod
    async def start(
        cls,
        model: str,
        wanted: ServedRelease,
        bodies: BodyMemory,
        on_end: "Callable[[WorkerRelease], None]",
        *,
        queued: int = QUEUED,
    ) -> Self:
        """Start a worker and load the release. Raises the errors of ``Runtime.load``.

        Raises DeviceError ``inference_failed`` if the worker ends or does not answer.
        """
        # Threads of the runtime would keep the low priority of the patient thread that starts them.
        for patient in (True, False) if thread_count() == 1 else (False,):
            worker = await cls._attempt(
                model, wanted, bodies, on_end, queued=queued, patient=patient
            )
            if worker is not None:
                return worker
        text = f"The worker did not load release {wanted.release} within {WORKER_LOAD_S:g} s."
        raise DeviceError("inference_failed", text)

    @classmethod
    async def _attempt(
        cls,
        model: str,
        wanted: ServedRelease,
        bodies: BodyMemory,
        on_end: "Callable[[WorkerRelease], None]",
        *,
        queued: int,
        patient: bool,
    ) -> Self | None:
        """Start a worker and load the release. None if that takes too long."""
        starting = asyncio.ensure_future(
            asyncio.to_thread(WorkerProcess.start, bodies.descriptor, patient=patient)
        )
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:  # no process is left behind
            process = await starting
            process.close()
            await asyncio.to_thread(process.reap)
            raise
        worker = cls(model, wanted, process, bodies, on_end, queued=queued)
        limit_s = WORKER_PATIENT_LOAD_S if patient else WORKER_LOAD_S
        try:
            await asyncio.wait_for(worker._load(), limit_s)
        except TimeoutError:
            worker._kill("did not load the release.")
            await worker.retire()
            return None
        except BaseException:
            await worker.retire()
            raise
        return worker

    def __init__(
        self,
        model: str,
        wanted: ServedRelease,
        process: WorkerProcess,
        bodies: BodyMemory,
        on_end: "Callable[[WorkerRelease], None]",
        *,
        queued: int = QUEUED,
    ) -> None:
        self.model = model
        self.wanted = wanted
        self.release = wanted.release
        self.stats = Stats()
        self.rows: RowWise | None = None
        self.inputs = wanted.variant.inputs
        self.declared = DeclaredInputs(self.inputs, wanted.variant.max_batch)
        self.outputs = wanted.variant.outputs
        self.datatypes: Mapping[str, Datatype] = {spec.name: spec.datatype for spec in self.outputs}
        self.quantised: Mapping[str, QuantisedTensor] = {}
        self.classes: ClassNames = {}
        self.worker: int | None = process.pid
        self._process = process
        self._on_end = on_end
        self._input_at = {spec.name: index for index, spec in enumerate(self.inputs)}
        self._output_at = {spec.name: index for index, spec in enumerate(self.outputs)}
        self._loop = asyncio.get_running_loop()
        self._channel = process.channel
        self._arrival = select.epoll()  # the event loop would make the channel itself non-blocking
        self._arrival.register(self._channel, _ANSWERS)
        self._area = SharedArea(process.memory)
        self._bodies = bodies
        self._plans: dict[tuple[object, ...], _Plan] = {}
        self._answers: dict[bytes, list[Tensor]] = {}
        self.times = RunTimes()
        self._size = 0  # the size class of the run in progress
        self._core: int | None = None  # the only one that the worker may use
        self._running: _Waiting | None = None
        self._base_kib = self._sent_ns = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting: deque[_Waiting] = deque()
        self._backlog = Backlog(queued)
        self._idle = asyncio.Event()
        self._idle.set()
        self._killed_for = self._end_cause = ""
        self._has_ended = self._retired = False
        self.stuck_s = 0.0  # a worker is killed

    @property
    def ended(self) -> str:
        reason = self._killed_for or self._process.exit_text()
        return f"The worker of release {self.release} {reason}" if self._has_ended else ""

    def find_end(self) -> str:
        if not self._has_ended:
            self._process.kills.update()  # those were other processes
        elif not self._end_cause:
            self._end_cause = self._process.exit_cause(killed=bool(self._killed_for))
        return self._end_cause

    def memory_kib(self) -> int:
        return max(0, memory_kib(self.worker) - self._base_kib)

    def infer(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str], deadline_ns: int = 0
    ) -> "Inferred | asyncio.Future[Inferred]":
        if self._has_ended:
            raise ReleaseEnded(ran=False)
        size = size_class(inputs)
        is_free = self._running is None and not self._waiting
        if is_free and self.times.is_fast(size):
            if (core := current_core()) != self._core:
                self._process.run_on(core)
                self._core = core
            self._send_run(inputs, outputs, size)
            data = self._receive(0)
            if data is not None:
                return self._result(data, inputs, outputs)
            if self.ended:
                self.stats.failed()
                raise ReleaseEnded(ran=True)
            waiting = _Waiting(inputs, outputs, self._loop.create_future(), size)
            self._backlog.came(waiting.future, size)
            self._backlog.start(size, 0)
            self._began(waiting)
        else:
            self._backlog.check(size, deadline_ns)
            in_time_ns = 0 if is_free else deadline_ns  # an idle release runs it in any case
            future = self._loop.create_future()
            waiting = _Waiting(inputs, outputs, future, size, in_time_ns)
            self._backlog.came(future, size)
            self._waiting.append(waiting)
            self._send_next()
        self.stats.came(waiting.future)
        self._idle.clear()
        waiting.future.add_done_callback(self._finished)
        return waiting.future

    async def retire(self, patience_s: float = RETIRE_S) -> None:
        self._retired = True
        if not self._has_ended and not await is_idle(self._idle, self.stats, patience_s):
            self._kill(f"did not end its requests within {patience_s:g} s.")
        self._close()
        await asyncio.to_thread(self._process.reap)

    async def _load(self) -> None:
        """Wait for the answer to Load."""
        loaded: asyncio.Future[bytes | None] = self._loop.create_future()

        def on_readable() -> None:
            self._loop.remove_reader(self._arrival)
            if not loaded.done():
                loaded.set_result(self._receive())

        self._loop.add_reader(self._arrival, on_readable)
        request = encode(self.wanted)
        self._area.write(request)
        self._send(encode_message(Load(len(request))))
        data = await loaded
        match self._decode(data) if data else None:
            case Loaded(times=times, base_kib=base_kib, quantised=quantised):
                self._base_kib = base_kib
                self.quantised = quantised
                self.times.learn(times)
            case Failed(code=code, message=text, field=field):
                raise error_from_code(code, text, field=field)
            case _:
                raise DeviceError("inference_failed", self.ended or "The worker does not answer.")
        self._arrival.modify(self._channel, _ENDS)
        self._loop.add_reader(self._arrival, self._on_readable)

    def _send_next(self) -> None:
        while self._running is None and self._waiting:
            waiting = self._waiting.popleft()
            if waiting.future.done():  # its client waits no more
                continue
            try:
                self._backlog.start(waiting.size, waiting.deadline_ns)
            except EdgefleetError as error:
                waiting.future.set_exception(error)
                continue
            self._send_run(waiting.inputs, waiting.outputs, waiting.size)
            self._began(waiting)
        if self._running is None:
            self._idle.set()

    def _began(self, waiting: _Waiting) -> None:
        if self._core is not None:  # this process goes on meanwhile
            self._process.run_on(None)
            self._core = None
        self._running = waiting
        self._arrival.modify(self._channel, _ANSWERS)
        self._deadline = self._loop.call_later(
            WORKER_RUN_S, self._kill, f"did not answer a request within {WORKER_RUN_S:g} s."
        )

    def _send_run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str], size: int) -> None:
        tensors = inputs.values()
        self._size = size
        bodies = [self._bodies.offset(tensor) for tensor in tensors]
        key = (*inputs, *outputs, *[tensor.shape for tensor in tensors], *bodies)
        plan = self._plans.get(key) or self._plan(key, inputs, outputs, bodies)
        for view, tensor in zip(plan.views, tensors, strict=True):
            if view is not None:
                view[...] = tensor
        self._sent_ns = time.perf_counter_ns()
        self._send(plan.message)

    def _plan(
        self,
        key: tuple[object, ...],
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str],
        bodies: Sequence[int],
    ) -> _Plan:
        """The message for a request. A message for text is not kept: its length changes."""
        indices = [self._input_at[name] for name in inputs]
        placed = self._area.place(list(inputs.values()), indices, bodies=bodies)
        message = encode_message(Run(placed, tuple(self._output_at[name] for name in outputs)))
        views = [
            None
            if one.in_body or tensor.dtype == object
            else self._area.tensor(one, self.inputs[one.index].datatype)
            for one, tensor in zip(placed, inputs.values(), strict=True)
        ]
        plan = _Plan(message, views)
        if all(tensor.dtype != object for tensor in inputs.values()):
            if len(self._plans) >= PLANS:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def _send(self, message: bytes) -> None:
        try:  # noqa: SIM105 - a context manager costs more
            self._channel.send(message, socket.MSG_DONTWAIT)
        except OSError:  # the end of the worker is found by reading
            pass

    def _receive(self, flags: int = socket.MSG_DONTWAIT) -> bytes | None:
        """The message that has arrived. None if there is none, or the worker has ended.

        Flags 0 wait for it as long as ``_limit_wait`` allows.
        """
        try:
            if data := self._channel.recv(MESSAGE_BYTES, flags):
                return data
        except BlockingIOError:
            return None
        except OSError:
            pass
        self._end()
        return None

    def _on_readable(self) -> None:
        data = self._receive()
        running = self._running
        if data is None or running is None:
            return
        self._running = None
        self._arrival.modify(self._channel, _ENDS)
        self._backlog.ran(running.size)
        if self._deadline is not None:
            self._deadline.cancel()
        try:
            tensors, lost_ns = self._result(data, running.inputs, running.outputs)
        except (EdgefleetError, ReleaseEnded) as error:
            if not running.future.done():
                running.future.set_exception(error)
        else:
            # The next request overwrites the shared memory.
            copies = [tensor.copy() for tensor in tensors]
            if not running.future.done():
                running.future.set_result((copies, lost_ns))
        self._send_next()

    def _result(
        self, data: bytes, inputs: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> Inferred:
        """The outputs as views of the shared memory, and the time on the way to it and back."""
        passed_ns = time.perf_counter_ns() - self._sent_ns
        run_ns, cpu_ns = RUN_COST.unpack_from(data)
        self.stats.cpu_ns += cpu_ns
        self.times.ran(self._size, cpu_ns / 1_000)
        tensors = self._answers.get(data[RUN_COST.size :])
        if tensors is None:
            tensors = self._read(data, outputs)
        self.stats.durations.ran(batch_of(inputs), run_ns)
        return tensors, max(0, passed_ns - run_ns)

    def _read(self, data: bytes, outputs: Sequence[str]) -> list[Tensor]:
        """The outputs of an answer. Small ones without text are kept for equal answers."""
        message = self._decode(data)
        if isinstance(message, Failed):
            raise error_from_code(message.code, message.message, field=message.field)
        if not isinstance(message, Made):
            raise ReleaseEnded(ran=True)
        try:
            datatypes: list[Datatype] = [self.datatypes[name] for name in outputs]
            pairs = zip(message.outputs, datatypes, strict=True)
            tensors = [self._area.tensor(placed, datatype) for placed, datatype in pairs]
        except (ValueError, EdgefleetError) as error:
            self._kill(f"sent an invalid answer: {error}.")
            raise ReleaseEnded(ran=True) from error
        if end_of(message.outputs) > KEPT_BYTES:
            tensors = [tensor.copy() for tensor in tensors]
            self._area.free()
        elif "BYTES" not in datatypes:
            if len(self._answers) >= PLANS:
                self._answers.clear()
            self._answers[data[RUN_COST.size :]] = tensors
        return tensors

    def _decode(self, data: bytes) -> Message | None:
        """The message. None, and the worker is killed, if it is invalid."""
        try:
            return decode_message(memoryview(data)[RUN_COST.size :])
        except msgspec.MsgspecError as error:
            self._kill(f"sent an invalid message: {error}.")
            return None

    def _finished(self, answer: "asyncio.Future[Inferred]") -> None:
        self.stats.went(answer)
        self._backlog.went(answer)
        if self._running is None and not self._waiting:
            self._idle.set()

    def _kill(self, reason: str) -> None:
        self._killed_for = reason
        self._process.kill()
        self._end()

    def _end(self) -> None:
        """The worker answers no more: give its requests back and report it, once."""
        if self._has_ended:
            return
        self._has_ended = True
        self._close()
        if not self._retired:
            self._on_end(self)
        running, self._running = self._running, None
        for waiting in (*((running,) if running else ()), *self._waiting):
            if not waiting.future.done():
                self.stats.failed()  # it was asked of this release, and got no answer
                waiting.future.set_exception(ReleaseEnded(ran=waiting is running))
        self._waiting.clear()
        self._idle.set()

    def _close(self) -> None:
        if self._channel.fileno() < 0:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._loop.remove_reader(self._arrival)
        self._arrival.close()
        self._process.close()
