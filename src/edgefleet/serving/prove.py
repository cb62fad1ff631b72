"""Proves a candidate: runs its golden set on this device, in the runtime of serving.

``python -m edgefleet.serving.prove`` reads a ProveRequest as JSON from standard input and prints a
ProveResult as its last line. The exit code is 0 if the candidate passed, 1 if it failed, 2 if the
request is invalid. It runs in a separate process, so that a model that crashes stops nothing else.
"""

import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from statistics import median_low

import numpy as np

from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.protocol.release import Artifact, TensorSpec, Variant
from edgefleet.protocol.serving import ProveRequest, ProveResult
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.golden_set import GoldenSet, read_golden
from edgefleet.serving.limits import PROVE_STDIN_BYTES
from edgefleet.serving.runtime import LoadedModel, Tensor, runtime_for


def prove(request: ProveRequest) -> ProveResult:
    """Run the golden set. The class of a case is the arg max of the variant's first output.

    Errors of the model or the golden set are in the result and are not raised.
    """
    variant, golden = request.variant, request.golden
    began = time.perf_counter()
    try:
        model = runtime_for(variant).load(Path(request.artifact_path), variant)
    except EdgefleetError as error:
        return ProveResult(passed=False, reason="load_failed", detail=_detail(error))
    load_ms = (time.perf_counter() - began) * 1_000
    try:
        cases = _read_cases(Path(request.golden_path), golden.artifact, golden.cases, variant)
        got, took_us = _run(model, variant, cases)
    except EdgefleetError as error:
        return ProveResult(
            passed=False, reason="golden_failed", detail=_detail(error), load_ms=load_ms
        )
    reference = _classes(cases.outputs[variant.outputs[0].name])
    accuracy = _share_equal(got, cases.labels)
    agreement = _share_equal(got, reference)
    short = [
        f"{name} {share:.4f} is below {wanted:.4f}"
        for name, share, wanted in (
            ("accuracy", accuracy, golden.min_accuracy),
            ("agreement", agreement, golden.min_agreement),
        )
        if not share >= wanted
    ]
    return ProveResult(
        passed=not short,
        reason="golden_failed" if short else "",
        detail="; ".join(short),
        accuracy=accuracy,
        agreement=agreement,
        cases=len(got),
        latency_us_p50=took_us,
        load_ms=load_ms,
    )


def main() -> int:
    """Read the request, prove, print the result. See the top of this module."""
    try:
        request = decode(sys.stdin.buffer.read(PROVE_STDIN_BYTES), ProveRequest)
    except EdgefleetError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    result = prove(request)
    sys.stdout.write(f"{encode(result).decode()}\n")
    return 0 if result.passed else 1


def _read_cases(path: Path, artifact: Artifact, cases: int, variant: Variant) -> GoldenSet:
    try:
        found = sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PublisherError(
            "golden_mismatch", f"The golden set cannot be read: {error.strerror}."
        ) from error
    if found != artifact.sha256:
        raise PublisherError(
            "digest_mismatch", "The golden set does not match the digest in the manifest."
        )
    read = read_golden(path, variant.inputs, variant.outputs)
    if len(read.labels) != cases:
        raise PublisherError(
            "golden_mismatch",
            f"The golden set has {len(read.labels)} cases, the manifest has {cases}.",
        )
    return read


def _run(model: LoadedModel, variant: Variant, cases: GoldenSet) -> tuple[Tensor, int]:
    """The class of each case, and the median time of a batch in microseconds."""
    size = _batch(variant)
    output = variant.outputs[0].name
    classes: list[Tensor] = []
    took_us: list[int] = []
    for start in range(0, len(cases.labels), size):
        inputs = {name: array[start : start + size] for name, array in cases.inputs.items()}
        count = len(cases.labels[start : start + size])
        began = time.perf_counter_ns()
        made = model.run(_filled(inputs, variant.inputs), [output])[0]
        took_us.append((time.perf_counter_ns() - began) // 1_000)
        classes.append(_classes(made)[:count])
    return np.concatenate(classes), median_low(took_us)


def _batch(variant: Variant) -> int:
    """The batch size: the model's fixed batch, else the variant's largest one."""
    fixed = [spec.shape[0] for spec in variant.inputs if spec.shape[0] != -1]
    return fixed[0] if fixed else variant.max_batch


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


def _classes(scores: Tensor) -> Tensor:
    """Arg max of each case. -1, which equals no class, if a score is not a number."""
    flat = scores.reshape(len(scores), -1)
    return np.where(np.isnan(flat).any(axis=1), -1, flat.argmax(axis=1))


def _share_equal(got: Tensor, wanted: Tensor) -> float:
    return float(np.mean((got == wanted) & (got >= 0)))


def _detail(error: EdgefleetError) -> str:
    return f"{error.code}: {error.message}"


if __name__ == "__main__":
    sys.exit(main())
