"""Compares the latency and the memory of two models on this machine, with real inputs.

Both are loaded in one process, and each round runs both, in a random order: what else the machine
does hits both alike. The interval of the ratio is a bootstrap over blocks of rounds in a row
(Kunsch 1989, Annals of Statistics 17:1217-1241, with blocks that do not overlap): rounds near each
other are alike, so single rounds would give an interval that is too narrow.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.base.texts import counted
from edgefleet.optimize.array_files import write_arrays
from edgefleet.optimize.child import free_limits, run_child
from edgefleet.optimize.comparison.answers import Side
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.latency_process import LatencyAnswer, LatencyRequest
from edgefleet.optimize.measurement import Latency
from edgefleet.optimize.paired import LEVEL
from edgefleet.optimize.run_process import RunAnswer, RunRequest
from edgefleet.protocol.wire import Wire
from edgefleet.serving.prove import run_batch

ROUNDS: Final = 2_000  # at most
LEAST_ROUNDS: Final = 60
BLOCKS: Final = 30
_RESAMPLES: Final = 2_000
_SEED: Final = 20_140_611
_LATENCY: Final = "edgefleet.optimize.latency_process"
_RUN: Final = "edgefleet.optimize.run_process"


class TimesFaster(Wire, frozen=True, kw_only=True):
    """How many times faster the second model is, with the paired interval of 95 %."""

    times: float
    low: float
    high: float


class CostComparison(Wire, frozen=True, kw_only=True):
    """Latency of a batch, and the memory that loading and running a model takes, in bytes."""

    batch: int
    threads: int
    before: Latency
    after: Latency
    by_p50: TimesFaster
    by_p10: TimesFaster
    memory_before_bytes: int
    memory_after_bytes: int


def why_not_measured(before: Side, after: Side) -> str:
    """Why the latencies of two models do not compare. Empty: they do."""
    specs = [
        sorted((spec.name, spec.datatype, spec.shape[1:]) for spec in one.variant.inputs)
        for one in (before, after)
    ]
    if specs[0] != specs[1]:
        return "The models have different inputs."
    batches = [run_batch(one.variant) for one in (before, after)]
    if batches[0] != batches[1]:
        return (
            f"The first model runs {counted(batches[0], 'case')} at once, the second {batches[1]}."
        )
    return ""


def compare_costs(
    before: Side, after: Side, inputs: Arrays, *, seconds: float, threads: int = 1
) -> CostComparison:
    """Measure both for about ``seconds``. Raises the errors of the models, and ``step_failed``.

    ``why_not_measured`` must be empty.
    """
    sides = (before, after)
    with tempfile.TemporaryDirectory(prefix="edgefleet-compare-") as name:
        folder = Path(name)
        write_arrays(folder / "inputs", inputs)
        answer = run_child(
            _LATENCY,
            LatencyRequest(
                variants=tuple(one.variant for one in sides),
                models=tuple(str(one.path.absolute()) for one in sides),
                inputs=str(folder / "inputs"),
                threads=threads,
                runs=ROUNDS,
                least=LEAST_ROUNDS,
                seconds=seconds,
                keep_rounds=True,
            ),
            LatencyAnswer,
            free_limits(),
            what="Measuring latency",
        )
        memory = [_memory(one, folder, number, threads) for number, one in enumerate(sides)]
    took = np.array(answer.rounds_ns, np.float64)
    return CostComparison(
        batch=run_batch(before.variant),
        threads=threads,
        before=answer.latencies[0],
        after=answer.latencies[1],
        by_p50=times_faster(took[0], took[1], 0.5),
        by_p10=times_faster(took[0], took[1], 0.1),
        memory_before_bytes=memory[0],
        memory_after_bytes=memory[1],
    )


def times_faster(
    before: NDArray[np.float64], after: NDArray[np.float64], share: float
) -> TimesFaster:
    """The ratio of the quantiles ``share`` of two models in the same rounds, in their order."""
    rounds, size = len(before), max(1, len(before) // BLOCKS)
    blocks = np.arange(rounds // size * size).reshape(-1, size)
    rng = np.random.default_rng(_SEED)
    chosen = rng.integers(0, len(blocks), (_RESAMPLES, len(blocks)))
    ratios = [_ratio(before[rows], after[rows], share) for rows in map(blocks.__getitem__, chosen)]
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return TimesFaster(times=_ratio(before, after, share), low=float(low), high=float(high))


def _ratio(before: NDArray[np.float64], after: NDArray[np.float64], share: float) -> float:
    return float(np.quantile(before, share) / max(1.0, float(np.quantile(after, share))))


def _memory(side: Side, folder: Path, number: int, threads: int) -> int:
    """The peak of a process that runs the model, less that of one that loads none."""
    peaks: Sequence[int] = [
        run_child(
            _RUN,
            RunRequest(
                variant=side.variant,
                model=model,
                inputs=str(folder / "inputs"),
                outputs=str(folder / f"outputs-{number}") if model else "",
                threads=threads,
            ),
            RunAnswer,
            free_limits(),
            what="Running the model",
        ).peak_memory_bytes
        for model in (str(side.path.absolute()), "")
    ]
    return max(0, peaks[0] - peaks[1])
