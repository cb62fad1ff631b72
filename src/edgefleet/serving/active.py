"""One release that answers: its model in memory, where it runs, and its counters."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.protocol.release import Datatype
from edgefleet.protocol.serving import Activate
from edgefleet.serving.limits import INLINE_US, QUEUED
from edgefleet.serving.runtime import LoadedModel, Tensor
from edgefleet.serving.stats import Stats

_SCORES: Final = ("FP16", "FP32", "FP64")


class ActiveRelease:
    """What was asked for, loaded.

    A model whose largest batch takes under a millisecond runs on the event loop: handing it to a
    thread and back would cost more than it does. A slower one has a thread of its own, so that
    health, metrics and refusals are answered meanwhile. Requests are not put together into
    batches: a dynamically quantised model scales a whole batch at once, so one client's answer
    would depend on another's input.
    """

    def __init__(self, wanted: Activate, loaded: LoadedModel) -> None:
        self.wanted = wanted
        self.stats = Stats()
        self.inputs = wanted.variant.inputs
        self.outputs = wanted.variant.outputs
        self.datatypes: dict[str, Datatype] = {spec.name: spec.datatype for spec in self.outputs}
        self.inline = 0 < loaded.run_us < INLINE_US
        self._loaded = loaded
        self._worker = None if self.inline else ThreadPoolExecutor(1, "inference")

    @property
    def model(self) -> str:
        return self.wanted.model

    @property
    def release(self) -> str:
        return self.wanted.release

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        """Infer here and now. Raises DeviceError ``inference_failed``."""
        return self._loaded.run(inputs, outputs)

    def submit(
        self, inputs: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> "asyncio.Future[list[Tensor]]":
        """Infer in the worker, when its turn comes; the turn is taken before this returns.

        Raises DeviceError ``overloaded`` when as many wait as may; the future raises
        ``inference_failed``.
        """
        if self.stats.in_flight > QUEUED:
            raise DeviceError("overloaded", f"{QUEUED} inferences wait already.")
        future = asyncio.get_running_loop().run_in_executor(
            self._worker, self._loaded.run, inputs, outputs
        )
        self.stats.in_flight += 1
        future.add_done_callback(self._left)
        return future

    def retire(self) -> None:
        """Finish what was begun, then end the worker. Blocks until then."""
        if self._worker is not None:
            self._worker.shutdown(wait=True)

    def _left(self, _: "asyncio.Future[list[Tensor]]") -> None:
        self.stats.in_flight -= 1


def check_quality(wanted: Activate) -> None:
    """Raise PublisherError ``release_file_invalid`` when live quality could not be read."""
    for spec in wanted.variant.outputs:
        if spec.name == wanted.quality.output:
            if spec.datatype in _SCORES and len(spec.shape) >= 2:
                return
            raise PublisherError(
                "release_file_invalid",
                f"{spec.name} is {spec.datatype} {list(spec.shape)}, no scores of classes.",
                field="quality.output",
            )
    raise PublisherError(
        "release_file_invalid",
        f"The model has no output {wanted.quality.output!r}.",
        field="quality.output",
    )
