"""A release that is loaded in the serving process: its model, its thread and its counters."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.release import FLOATS, Datatype, TensorSpec
from edgefleet.protocol.serving import ServedRelease
from edgefleet.serving.backlog import Backlog
from edgefleet.serving.class_names import ClassNames
from edgefleet.serving.cpu_use import RunClock
from edgefleet.serving.declared import DeclaredInputs, batch_of
from edgefleet.serving.limits import QUEUED, RETIRE_S
from edgefleet.serving.row_wise import RowWise
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.run_times import RunTimes, size_class
from edgefleet.serving.runtime import LoadedModel, QuantisedTensor, Tensor, quantised_tensors
from edgefleet.serving.stats import Stats

Inferred = tuple[list[Tensor], int]
"""The outputs, and the time in nanoseconds that was lost on the way to a worker and back."""


class ReleaseEnded(Exception):  # noqa: N818 - an event for the caller, which asks another release
    """The release ended before it answered. The inference may be asked of another release.

    ``ran``: the release was ended while it ran this inference, which may be why.
    """

    def __init__(self, *, ran: bool) -> None:
        super().__init__(ran)
        self.ran = ran


class Release(Protocol):
    """A loaded release of a model, in the serving process or in a worker."""

    model: str
    wanted: ServedRelease
    release: str
    stats: Stats
    inputs: tuple[TensorSpec, ...]
    declared: DeclaredInputs
    datatypes: Mapping[str, Datatype]  # of the outputs
    quantised: Mapping[str, QuantisedTensor]  # inputs and outputs, as the file has them
    classes: ClassNames  # of outputs; empty without names
    rows: RowWise | None  # None: its requests are always run one by one
    times: RunTimes

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def worker(self) -> int | None:
        """The pid of its worker. None if it is loaded in the serving process."""
        ...

    @property
    def ended(self) -> str:
        """The reason why it can answer no more. Empty while it can."""
        ...

    def find_end(self) -> str:
        """``ended`` as a cause of ``protocol.serving_health``. Called with each status."""
        ...

    def memory_kib(self) -> int:
        """The memory of this release alone."""
        ...

    def infer(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str], deadline_ns: int = 0
    ) -> "Inferred | asyncio.Future[Inferred]":
        """Infer now, or queue the inference. The queue is first in, first out.

        Raises Overloaded if the queue is full. It, or the future, raises Overloaded if the answer
        would come after ``deadline_ns`` of the performance counter (0: none), DeviceError
        ``inference_failed``, or ReleaseEnded.
        """
        ...

    async def retire(self, patience_s: float = RETIRE_S) -> None:
        """Finish the queued inferences, then free the model.

        Once the oldest is ``patience_s`` old, those that are left raise ReleaseEnded, and a worker
        is killed. One that runs in the serving process goes on nevertheless, see ``stuck_s``.
        """
        ...

    @property
    def stuck_s(self) -> float:
        """For how long it has let go of no inference after its retirement. 0 if it has let go."""
        ...


class ActiveRelease:
    """A release of ``model`` in the serving process.

    A run that is known to take under a millisecond (``RunTimes``) is done on the event loop: a
    thread would cost more time than the model. The others run in a thread, so that the event loop
    answers health, metrics and refusals meanwhile. ``rows`` says whether requests may be combined
    into batches: a dynamically quantised model scales a whole batch, so an answer would depend on
    the inputs of other clients.
    """

    def __init__(
        self,
        model: str,
        wanted: ServedRelease,
        loaded: LoadedModel,
        *,
        marks: RunMarks,
        times: RunTimes | None = None,
        own_kib: int = 0,
        queued: int = QUEUED,
    ) -> None:
        self.model = model
        self.wanted = wanted
        self.release = wanted.release
        self.worker: int | None = None
        self.ended = ""
        self.stats = Stats()
        self.inputs = wanted.variant.inputs
        self.declared = DeclaredInputs(self.inputs, wanted.variant.max_batch)
        self.outputs = wanted.variant.outputs
        self.datatypes: Mapping[str, Datatype] = {spec.name: spec.datatype for spec in self.outputs}
        self.quantised = quantised_tensors(loaded)
        self.classes: ClassNames = {}
        self.times = times or RunTimes()
        self.rows: RowWise | None = RowWise(wanted.variant)
        self._loaded = loaded
        self._cpu = RunClock(loaded.threads)
        self._own_kib = own_kib
        self._run_marks = marks
        self._marks = marks.marks
        self._place = marks.reserve(model)
        self._thread = ThreadPoolExecutor(1, "inference")  # it starts with its first run
        self._coming: dict[Future[Inferred], asyncio.Future[Inferred]] = {}
        self.backlog = Backlog(queued)
        self._idle = asyncio.Event()
        self._idle.set()
        self._retired_at: float | None = None

    @property
    def stuck_s(self) -> float:
        if self._retired_at is None or not self._coming:
            return 0.0
        return time.monotonic() - self._retired_at

    def find_end(self) -> str:
        return ""  # the serving process ends with it

    def memory_kib(self) -> int:
        return self._own_kib

    def infer(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str], deadline_ns: int = 0
    ) -> "Inferred | asyncio.Future[Inferred]":
        size = size_class(inputs)
        if not self._coming and self.times.is_fast(size):
            return self._run(inputs, outputs, size)
        self.backlog.check(size, deadline_ns)
        loop = asyncio.get_running_loop()
        in_time_ns = deadline_ns if self._coming else 0  # an idle release runs it in any case
        run = self._thread.submit(self._run_in_turn, inputs, outputs, size, in_time_ns)
        answer: asyncio.Future[Inferred] = loop.create_future()
        self._coming[run] = answer
        self._idle.clear()
        self.stats.came(run)
        self.backlog.came(run, size)
        run.add_done_callback(lambda run: loop.call_soon_threadsafe(self._finished, run))
        answer.add_done_callback(lambda answer: answer.cancelled() and run.cancel())
        return answer

    async def retire(self, patience_s: float = RETIRE_S) -> None:
        if not await is_idle(self._idle, self.stats, patience_s):
            for run, answer in self._coming.items():
                if not answer.done():
                    answer.set_exception(ReleaseEnded(ran=run.running()))
        self._retired_at = time.monotonic()
        self._thread.shutdown(wait=False, cancel_futures=True)
        if not self._coming:
            self._release()

    def _release(self) -> None:
        """Free the model: no run of it is in progress, and none follows."""
        self._run_marks.release(self._place)
        self._loaded.close()

    def _run_in_turn(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str], size: int, deadline_ns: int
    ) -> Inferred:
        self.backlog.start(size, deadline_ns)
        try:
            return self._run(inputs, outputs, size)
        finally:
            self.backlog.ran(size)

    def _run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str], size: int) -> Inferred:
        self._marks[self._place] = 1
        self._cpu.start()
        began_ns = time.perf_counter_ns()
        try:
            made = self._loaded.run(inputs, outputs)
        finally:
            cpu_ns = self._cpu.stop()
            self.stats.cpu_ns += cpu_ns
            self._marks[self._place] = 0
            self.times.ran(size, cpu_ns / 1_000)
        self.stats.durations.ran(batch_of(inputs), time.perf_counter_ns() - began_ns)
        return made, 0

    def _finished(self, run: Future[Inferred]) -> None:
        answer = self._coming.pop(run)
        self.stats.went(run)
        self.backlog.went(run)
        if not self._coming:
            self._idle.set()
            if self._retired_at is not None:
                self._release()
        if answer.done():
            return
        if (error := run.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(run.result())


async def is_idle(idle: asyncio.Event, stats: Stats, patience_s: float) -> bool:
    """Wait until no request is in flight. False if one is older than ``patience_s``."""
    try:
        await asyncio.wait_for(idle.wait(), max(0.0, patience_s - stats.oldest_in_flight_s()))
    except TimeoutError:
        return False
    return True


def check_quality(wanted: ServedRelease) -> None:
    """Raises PublisherError ``release_file_invalid`` if the declared quality cannot be measured."""
    if wanted.quality is None:
        return
    for spec in wanted.variant.outputs:
        if spec.name == wanted.quality.output:
            if spec.datatype in FLOATS and len(spec.shape) >= 2:
                return
            raise PublisherError(
                "release_file_invalid",
                f"Output {spec.name} is {spec.datatype} {list(spec.shape)}, not class scores.",
                field="quality.output",
            )
    raise PublisherError(
        "release_file_invalid",
        f"The model has no output {wanted.quality.output!r}.",
        field="quality.output",
    )
