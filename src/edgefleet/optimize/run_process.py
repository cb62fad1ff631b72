"""Runs one candidate on the evaluation data: a child process, see ``child``.

The answers are those at the profile's batch. The peak of memory is that of loading the model and
running the first batch. A process without a model does the same but for that: the difference is
what the model needs.
"""

import sys
from pathlib import Path

import numpy as np

from edgefleet.optimize.array_files import read_arrays, write_arrays
from edgefleet.optimize.child import serve_child
from edgefleet.optimize.samples import Array
from edgefleet.protocol.release import Variant
from edgefleet.protocol.wire import Wire
from edgefleet.serving.checked_file import checked
from edgefleet.serving.limits import WARM_UP_RUNS
from edgefleet.serving.prove import answers_to, run_batch
from edgefleet.serving.runtime import runtime_for


class RunRequest(Wire, frozen=True, kw_only=True):
    """``inputs`` is a folder of arrays; ``outputs`` is made. An empty ``model``: load none."""

    variant: Variant
    model: str
    inputs: str
    outputs: str
    threads: int


class RunAnswer(Wire, frozen=True, kw_only=True):
    """The largest resident memory of the process until the first batch was run."""

    peak_memory_bytes: int


def run(request: RunRequest) -> RunAnswer:
    """Run the candidate. Raises the errors of ``Runtime.load`` and of the runs."""
    variant = request.variant
    runtime = runtime_for(variant)
    runtime.start()
    inputs = read_arrays(Path(request.inputs))
    first = {name: _first_batch(array, variant) for name, array in inputs.items()}
    if not request.model:
        return RunAnswer(peak_memory_bytes=peak_memory_bytes())
    names = [spec.name for spec in variant.outputs]
    with checked(Path(request.model), variant.artifact) as file:
        model = runtime.load(file, variant, threads=request.threads)
    for _ in range(WARM_UP_RUNS):
        model.run(first, names)
    peak = peak_memory_bytes()
    made, _ = answers_to(model, variant, inputs, names)
    write_arrays(Path(request.outputs), made)
    return RunAnswer(peak_memory_bytes=peak)


def _first_batch(array: Array, variant: Variant) -> Array:
    return rows_of(array, 0, run_batch(variant))


def rows_of(array: Array, number: int, batch: int) -> Array:
    """Batch ``number``, full: after the last case comes the first one again."""
    rows = (np.arange(batch) + number * batch) % len(array)
    found = np.ascontiguousarray(array[rows])
    return found.astype(object) if found.dtype.kind == "U" else found


def peak_memory_bytes() -> int:
    """The largest resident memory of this process so far (VmHWM of proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


if __name__ == "__main__":
    sys.exit(serve_child(RunRequest, run))
