"""Loads a model for serving: checks the file, loads it, warms it up, and gives memory back."""

import ctypes
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgefleet.base.errors import EdgefleetError
from edgefleet.protocol.release import TensorSpec, Variant
from edgefleet.serving.checked_file import checked
from edgefleet.serving.golden_set import first_cases
from edgefleet.serving.limits import WARM_UP_RUNS
from edgefleet.serving.run_times import RunTimes, size_class
from edgefleet.serving.runtime import NUMPY_TYPES, LoadedModel, Tensor, runtime_for
from edgefleet.serving.threads import thread_count


class Warm(NamedTuple):
    """A loaded model, and the times of its runs on golden cases, if it had any."""

    model: LoadedModel
    times: RunTimes


def load_model(
    path: Path,
    variant: Variant,
    *,
    golden: Path | None = None,
    gently: bool = False,
    warm: bool = True,
) -> Warm:
    """Load the model at ``path``, and warm it up with the cases of its ``golden`` set.

    ``gently`` reads with pauses, in which other threads get the core. ``warm`` False: the caller
    runs the golden set.

    Raises PublisherError ``digest_mismatch``, ``not_a_model`` or ``model_unsupported``,
    OperatorError ``not_found``, DeviceError ``runtime_missing`` or ``inference_failed``.
    """
    runtime = runtime_for(variant)
    runtime.start()
    with checked(path, variant.artifact, gently=gently) as file:
        model = runtime.load(file, variant, threads=thread_count())
    times = RunTimes()
    try:
        if warm:
            _warm_up(model, variant, golden, times)
    except BaseException:
        model.close()
        raise
    return_memory()
    return Warm(model, times)


def return_memory() -> None:
    """Return the memory of a freed model to the system. glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _warm_up(model: LoadedModel, variant: Variant, golden: Path | None, times: RunTimes) -> None:
    """Run the smallest and the largest batch, so that the first request has no allocations.

    Golden cases are inputs as the model gets them. Zeros are used only without them: a model may
    take longer, or shorter, on zeros, so nothing is learnt from those.
    """
    cases = _golden_cases(golden, variant)
    if cases is None and any(-1 in spec.shape[1:] for spec in variant.inputs):
        return  # zeros of a guessed size may not fit
    outputs = [spec.name for spec in variant.outputs]
    for batch in sorted({1, variant.max_batch}):
        inputs = {
            spec.name: _zeros(spec, batch)
            if cases is None
            else _repeated(cases[spec.name], batch if spec.shape[0] == -1 else spec.shape[0])
            for spec in variant.inputs
        }
        for _ in range(WARM_UP_RUNS):
            began_ns = time.thread_time_ns()
            model.run(inputs, outputs)
            if cases is not None:
                times.ran(size_class(inputs), (time.thread_time_ns() - began_ns) / 1_000)


def _golden_cases(golden: Path | None, variant: Variant) -> Mapping[str, Tensor] | None:
    """The first cases of the golden set. None without one that can be used."""
    if golden is None:
        return None
    try:
        return first_cases(golden, variant.inputs, variant.max_batch)
    except EdgefleetError:  # a confirmed release needs its golden set no more
        return None


def _repeated(cases: Tensor, count: int) -> Tensor:
    return np.ascontiguousarray(cases[np.arange(count) % len(cases)])


def _zeros(spec: TensorSpec, batch: int) -> Tensor:
    shape = tuple(batch if size == -1 else size for size in spec.shape)
    if spec.datatype == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, NUMPY_TYPES[spec.datatype])
