"""A release that is loaded in the serving process: its model, its thread and its counters."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.protocol.serving import ServedRelease
from edgefleet.serving.cpu_use import RunClock
from edgefleet.serving.limits import INLINE_US, QUEUED
from edgefleet.serving.run_marks import RunMarks
from edgefleet.serving.runtime import LoadedModel, Tensor
from edgefleet.serving.stats import Stats

_SCORES: Final = ("FP16", "FP32", "FP64")

Inferred = tuple[list[Tensor], int]
"""The outputs, and the time in nanoseconds that was lost on the way to a worker and back."""


class Release(Protocol):
    """A loaded release of a model, in the serving process or in a worker."""

    model: str
    wanted: ServedRelease
    release: str
    stats: Stats
    inputs: tuple[TensorSpec, ...]
    datatypes: Mapping[str, Datatype]  # of the outputs

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

    def memory_kib(self) -> int:
        """The memory of this release alone."""
        ...

    def infer(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> "Inferred | asyncio.Future[Inferred]":
        """Infer now, or queue the inference. The queue is first in, first out.

        Raises DeviceError ``overloaded`` if the queue is full. It, or the future, raises
        DeviceError ``inference_failed``, or WorkerEnded.
        """
        ...

    async def retire(self) -> None:
        """Finish the queued inferences, then free the model."""
        ...


class ActiveRelease:
    """A release of ``model`` in the serving process.

    A model whose largest batch takes under a millisecond runs on the event loop: a thread would
    cost more time than the model. A slower model runs in a thread, so that the event loop answers
    health, metrics and refusals meanwhile. Requests are not combined into batches: a dynamically
    quantised model scales a whole batch, so an answer would depend on the inputs of other clients.
    """

    def __init__(
        self,
        model: str,
        wanted: ServedRelease,
        loaded: LoadedModel,
        *,
        marks: RunMarks,
        own_kib: int = 0,
    ) -> None:
        self.model = model
        self.wanted = wanted
        self.release = wanted.release
        self.worker: int | None = None
        self.ended = ""
        self.stats = Stats()
        self.inputs = wanted.variant.inputs
        self.outputs = wanted.variant.outputs
        self.datatypes: Mapping[str, Datatype] = {spec.name: spec.datatype for spec in self.outputs}
        self.inline = 0 < loaded.run_us < INLINE_US
        self._loaded = loaded
        self._cpu = RunClock(loaded.threads)
        self._own_kib = own_kib
        self._run_marks = marks
        self._marks = marks.marks
        self._place = marks.reserve(model)
        self._thread = None if self.inline else ThreadPoolExecutor(1, "inference")

    def memory_kib(self) -> int:
        return self._own_kib

    def infer(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> "Inferred | asyncio.Future[Inferred]":
        if self.inline:
            return self._run(inputs, outputs)
        check_queue(self.stats)
        future = asyncio.get_running_loop().run_in_executor(
            self._thread, self._run, inputs, outputs
        )
        self.stats.in_flight += 1
        future.add_done_callback(self._finished)
        return future

    async def retire(self) -> None:
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)
        self._run_marks.release(self._place)

    def _run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Inferred:
        self._marks[self._place] = 1
        self._cpu.start()
        try:
            return self._loaded.run(inputs, outputs), 0
        finally:
            self.stats.cpu_ns += self._cpu.stop()
            self._marks[self._place] = 0

    def _finished(self, _: "asyncio.Future[Inferred]") -> None:
        self.stats.in_flight -= 1


def check_queue(stats: Stats) -> None:
    """Raises DeviceError ``overloaded`` if the queue is full."""
    if stats.in_flight > QUEUED:
        raise DeviceError("overloaded", f"{QUEUED} inferences are waiting; the limit is {QUEUED}.")


def check_quality(wanted: ServedRelease) -> None:
    """Raises PublisherError ``release_file_invalid`` if live quality cannot be measured."""
    for spec in wanted.variant.outputs:
        if spec.name == wanted.quality.output:
            if spec.datatype in _SCORES and len(spec.shape) >= 2:
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
