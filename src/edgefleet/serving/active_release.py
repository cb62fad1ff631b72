"""A loaded release: its model, its worker thread and its counters."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.protocol.release import Datatype
from edgefleet.protocol.serving import ServedRelease
from edgefleet.serving.limits import INLINE_US, QUEUED
from edgefleet.serving.runtime import LoadedModel, Tensor
from edgefleet.serving.stats import Stats

_SCORES: Final = ("FP16", "FP32", "FP64")


class ActiveRelease:
    """A loaded release of ``model``.

    A model whose largest batch takes under a millisecond runs on the event loop: a thread would
    cost more time than the model. A slower model runs in a thread, so that the event loop answers
    health, metrics and refusals meanwhile. Requests are not combined into batches: a dynamically
    quantised model scales a whole batch, so an answer would depend on the inputs of other clients.
    """

    def __init__(self, model: str, wanted: ServedRelease, loaded: LoadedModel) -> None:
        self.model = model
        self.wanted = wanted
        self.release = wanted.release
        self.stats = Stats()
        self.inputs = wanted.variant.inputs
        self.outputs = wanted.variant.outputs
        self.datatypes: dict[str, Datatype] = {spec.name: spec.datatype for spec in self.outputs}
        self.inline = 0 < loaded.run_us < INLINE_US
        self._loaded = loaded
        self._worker = None if self.inline else ThreadPoolExecutor(1, "inference")

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Infer on the calling thread. Raises DeviceError ``inference_failed``."""
        return self._loaded.run(inputs, outputs)

    def submit(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> "asyncio.Future[list[Tensor]]":
        """Queue an inference for the worker thread. The queue is first in, first out.

        Raises DeviceError ``overloaded`` if the queue is full. The future raises DeviceError
        ``inference_failed``.
        """
        if self.stats.in_flight > QUEUED:
            raise DeviceError(
                "overloaded", f"{QUEUED} inferences are waiting; the limit is {QUEUED}."
            )
        future = asyncio.get_running_loop().run_in_executor(
            self._worker, self._loaded.run, inputs, outputs
        )
        self.stats.in_flight += 1
        future.add_done_callback(self._finished)
        return future

    def retire(self) -> None:
        """Finish the queued inferences, then end the worker thread. Blocks until then."""
        if self._worker is not None:
            self._worker.shutdown(wait=True)

    def _finished(self, _: "asyncio.Future[list[Tensor]]") -> None:
        self.stats.in_flight -= 1


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
