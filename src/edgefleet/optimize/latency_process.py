"""Measures the latency of several candidates of one runtime: a child process, see ``child``.

All candidates are loaded, and each round runs every one of them once, in another order: other work
of the machine hits all alike.
"""

import gc
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet.optimize.array_files import read_arrays
from edgefleet.optimize.child import serve_child
from edgefleet.optimize.measurement import SPREAD, Latency
from edgefleet.optimize.run_process import rows_of
from edgefleet.protocol.release import Variant
from edgefleet.protocol.wire import Wire
from edgefleet.serving.checked_file import checked
from edgefleet.serving.limits import WARM_UP_RUNS
from edgefleet.serving.prove import run_batch
from edgefleet.serving.runtime import LoadedModel, runtime_for

_BATCHES: Final = 4  # different ones: some models take longer on some inputs


class LatencyRequest(Wire, frozen=True, kw_only=True):
    """Candidates and their files. At most ``runs`` rounds, and about ``seconds``, but ``least``.

    ``keep_rounds``: the answer has the time of each run.
    """

    variants: tuple[Variant, ...]
    models: tuple[str, ...]
    inputs: str
    threads: int
    runs: int
    least: int
    seconds: float
    keep_rounds: bool = False


class LatencyAnswer(Wire, frozen=True, kw_only=True):
    """In the order of the request. ``rounds_ns``: the runs of each candidate, round by round."""

    latencies: tuple[Latency, ...]
    rounds_ns: tuple[tuple[int, ...], ...] = ()


def measure(request: LatencyRequest) -> LatencyAnswer:
    """Measure. Raises the errors of ``Runtime.load`` and of the runs."""
    inputs = read_arrays(Path(request.inputs))
    batch = run_batch(request.variants[0])
    batches = [
        {name: rows_of(array, number, batch) for name, array in inputs.items()}
        for number in range(_BATCHES)
    ]
    models = [
        _load(variant, path, request.threads)
        for variant, path in zip(request.variants, request.models, strict=True)
    ]
    names = [[spec.name for spec in variant.outputs] for variant in request.variants]
    for model, outputs in zip(models, names, strict=True):
        for _ in range(WARM_UP_RUNS):
            model.run(batches[0], outputs)
    took: list[list[int]] = [[] for _ in models]
    order = np.random.default_rng(0)
    gc.collect()
    gc.disable()
    end = time.perf_counter() + request.seconds
    for number in range(request.runs):
        if number >= request.least and time.perf_counter() > end:
            break
        given: dict[str, Any] = batches[number % _BATCHES]
        for place in order.permutation(len(models)).tolist():
            began = time.perf_counter_ns()
            models[place].run(given, names[place])
            took[place].append(time.perf_counter_ns() - began)
    return LatencyAnswer(
        latencies=tuple(map(_latency, took)),
        rounds_ns=tuple(map(tuple, took)) if request.keep_rounds else (),
    )


def _load(variant: Variant, path: str, threads: int) -> LoadedModel:
    runtime = runtime_for(variant)
    runtime.start()
    with checked(Path(path), variant.artifact) as file:
        return runtime.load(file, variant, threads=threads)


def _latency(took_ns: list[int]) -> Latency:
    took = np.array(took_ns, np.float64) / 1e9
    p10, p50 = np.percentile(took, (10, 50))
    spread = tuple(np.quantile(took, SPREAD).tolist())
    return Latency(p50_s=float(p50), p10_s=float(p10), runs=len(took_ns), spread_s=spread)


if __name__ == "__main__":
    sys.exit(serve_child(LatencyRequest, measure))
