"""Proves a candidate: runs its golden set on this device, in the runtime of serving.

``python -m edgefleet.serving.prove`` reads a ProveRequest as JSON from standard input and prints a
ProveResult as its last line. The exit code is 0 if the candidate passed, 1 if it failed, 2 if the
request is invalid. ``--threads N`` is that of the serving process. The proof runs in a process of
its own, so that a model that crashes stops nothing else.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median_low

import numpy as np

from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.protocol.comparisons import Comparison, Top1, compared_outputs
from edgefleet.protocol.release import Golden, TensorSpec, Variant, fixed_batch
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.bf16 import all_numbers
from edgefleet.serving.comparisons import Tensors, against_labels, compare, worst_case
from edgefleet.serving.golden_set import GoldenSet, read_golden
from edgefleet.serving.limits import PROVE_STDIN_BYTES
from edgefleet.serving.loading import load_model
from edgefleet.serving.runtime import LoadedModel, Tensor, runtime_for
from edgefleet.serving.threads import set_thread_count


def prove(request: ProveRequest) -> ProveResult:
    """Run the golden set and compare the answers. Without a comparison: by the first output.

    Errors of the model or the golden set are in the result and are not raised.
    """
    variant, golden = request.variant, request.golden
    began = time.perf_counter()
    try:
        version = next(iter(runtime_for(variant).versions().values()), "")
        model = load_model(Path(request.artifact_path), variant, warm=False).model
    except EdgefleetError as error:
        return ProveResult(passed=False, reason="load_failed", detail=_detail(error))
    load_ms = (time.perf_counter() - began) * 1_000
    comparison = golden.comparison or Top1(output=variant.outputs[0].name)
    try:
        cases = _read_cases(Path(request.golden_path), golden, variant)
        made, took_us = answers_to(model, variant, cases.inputs, compared_outputs(comparison))
        got = all_numbers(made)
        accuracy = _accuracy(comparison, got, cases)
        agreement = compare(comparison, got, cases.outputs)
    except EdgefleetError as error:
        return ProveResult(
            passed=False,
            reason="golden_failed",
            detail=_detail(error),
            load_ms=load_ms,
            runtime=version,
        )
    faults = [
        *_fault(
            "accuracy",
            accuracy,
            golden.min_accuracy,
            comparison=comparison,
            got=got,
            wanted=cases.truth,
        ),
        *_fault(
            "agreement",
            agreement,
            golden.min_agreement,
            comparison=comparison,
            got=got,
            wanted=cases.outputs,
        ),
    ]
    return ProveResult(
        passed=not faults,
        reason="golden_failed" if faults else "",
        detail="; ".join(faults),
        accuracy=accuracy,
        agreement=agreement,
        cases=cases.cases,
        latency_us_p50=took_us,
        load_ms=load_ms,
        runtime=version,
    )


def main() -> int:
    """Read the request, prove, print the result. See the top of this module."""
    try:
        if sys.argv[1:2] == ["--threads"]:
            set_thread_count("".join(sys.argv[2:]))
        request = decode(sys.stdin.buffer.read(PROVE_STDIN_BYTES), ProveRequest)
    except EdgefleetError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    result = prove(request)
    sys.stdout.write(f"{encode(result).decode()}\n")
    return 0 if result.passed else 1


def _accuracy(comparison: Comparison, got: Tensors, cases: GoldenSet) -> float | None:
    """The agreement with the truth. None if the golden set has no truth."""
    if isinstance(comparison, Top1):
        return (
            None if cases.labels is None else against_labels(got[comparison.output], cases.labels)
        )
    if not set(compared_outputs(comparison)) <= cases.truth.keys():
        return None
    return compare(comparison, got, cases.truth)


def _fault(
    name: str,
    value: float | None,
    least: float,
    *,
    comparison: Comparison,
    got: Tensors,
    wanted: Tensors,
) -> list[str]:
    if value is None:
        if least <= 0:
            return []
        return [f"{name} of at least {least:.4f} is required, and the golden set has no truth"]
    if value >= least:
        return []
    worst = worst_case(comparison, got, wanted)
    return [f"{name} {value:.4f} is below {least:.4f}{f' ({worst})' if worst else ''}"]


def _read_cases(path: Path, golden: Golden, variant: Variant) -> GoldenSet:
    try:
        found = sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PublisherError(
            "golden_mismatch", f"The golden set cannot be read: {error.strerror}."
        ) from error
    if found != golden.artifact.sha256:
        raise PublisherError(
            "digest_mismatch", "The golden set does not match the digest in the manifest."
        )
    read = read_golden(path, variant.inputs, variant.outputs, golden.comparison)
    if read.cases != golden.cases:
        raise PublisherError(
            "golden_mismatch",
            f"The golden set has {read.cases} cases, the manifest has {golden.cases}.",
        )
    return read


def answers_to(
    model: LoadedModel,
    variant: Variant,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
) -> tuple[dict[str, Tensor], int]:
    """The answers to all cases, and the median time of a batch in microseconds.

    A model with an open batch also answers the first case alone and a full batch of it, so that a
    model which works for one batch size only is found here. Raises DeviceError
    ``inference_failed``, PublisherError ``model_unsupported``.
    """
    size, cases = run_batch(variant), len(inputs[variant.inputs[0].name])
    if variant.inputs[0].shape[0] == -1:
        for count in {1, size}:
            first = {name: np.repeat(array[:1], count, axis=0) for name, array in inputs.items()}
            _answers(model, first, count, variant, outputs)
    made: list[list[Tensor]] = []
    took_us: list[int] = []
    for start in range(0, cases, size):
        batch = {name: array[start : start + size] for name, array in inputs.items()}
        count = min(size, cases - start)
        began = time.perf_counter_ns()
        answers = _answers(model, batch, count, variant, outputs)
        took_us.append((time.perf_counter_ns() - began) // 1_000)
        made.append([answer[:count] for answer in answers])
    whole = {
        name: _joined([answers[place] for answers in made]) for place, name in enumerate(outputs)
    }
    return whole, median_low(took_us)


def _answers(
    model: LoadedModel,
    inputs: Mapping[str, Tensor],
    count: int,
    variant: Variant,
    outputs: Sequence[str],
) -> list[Tensor]:
    """The answers to one batch. Raises PublisherError ``model_unsupported`` for another batch."""
    answers = model.run(_filled(inputs, variant.inputs), outputs)
    for name, answer in zip(outputs, answers, strict=True):
        if answer.ndim == 0 or len(answer) < count:
            raise PublisherError(
                "model_unsupported",
                f"For a batch of {count}, output {name} has the shape {list(answer.shape)}: its "
                "first size must be the batch.",
                hint="Export with a dynamic batch, or set max_batch to the batch of the export.",
            )
    return answers


def _joined(parts: list[Tensor]) -> Tensor:
    """The answers of all batches. Sizes that differ, as numbers of boxes, are filled with zeros."""
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1 and len({len(shape) for shape in shapes}) == 1:
        largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        parts = [
            np.pad(
                part,
                [
                    (0, 0),
                    *((0, most - size) for most, size in zip(largest, part.shape[1:], strict=True)),
                ],
            )
            for part in parts
        ]
    return np.concatenate(parts)


def run_batch(variant: Variant) -> int:
    """The batch size: the model's fixed batch, else the variant's largest one."""
    return fixed_batch(variant.inputs) or variant.max_batch


def _filled(inputs: Mapping[str, Tensor], specs: tuple[TensorSpec, ...]) -> dict[str, Tensor]:
    """Fill a short batch of a model with a fixed batch by repeating the last case."""
    full: dict[str, Tensor] = {}
    for spec in specs:
        array = np.ascontiguousarray(inputs[spec.name])
        missing = spec.shape[0] - len(array)
        full[spec.name] = (
            np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
            if missing > 0
            else array
        )
    return full


def _detail(error: EdgefleetError) -> str:
    return f"{error.code}: {error.message}"


if __name__ == "__main__":
    sys.exit(main())
