"""Compares the answers of two models to the same samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.accuracy import judge_accuracy
from edgefleet.optimize.array_files import arrays_digest
from edgefleet.optimize.evaluation_data import EvaluationData
from edgefleet.optimize.judgement import AccuracyProof
from edgefleet.optimize.measurement import Latency, Measurement
from edgefleet.optimize.metrics.by_task import evaluate, metric_for
from edgefleet.optimize.metrics.score import Score
from edgefleet.optimize.new_release import class_scores
from edgefleet.optimize.recipe import Recipe
from edgefleet.optimize.samples import Samples, read_samples
from edgefleet.protocol.release import TensorSpec, Variant
from edgefleet.protocol.wire import Wire
from edgefleet.serving.model_file import ModelFacts, inspect_model

Answers = Callable[[Variant, Path, Path], Mapping[str, NDArray[Any]]]
"""The answers ``output.<name>`` of a variant's file to the inputs of an ``.npz``."""

_KEEP: Final = 0.99
_CLOSE: Final = (1e-2, 1e-3)  # relative and absolute: a value that agrees
_NO_LATENCY: Final = Latency(p50_s=0.0, p10_s=0.0, runs=0)


class SampleComparison(Wire, frozen=True, kw_only=True):
    """The answers to ``cases`` samples.

    ``agreement`` is the share of cases with the same answer: the same highest score of a
    classifier, else all values within 1 %. ``metric`` is empty without right answers; ``accuracy``
    has both values and the paired interval, and ``text`` says what it shows.
    """

    cases: int
    agreement: float
    metric: str = ""
    accuracy: AccuracyProof | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models, and the variant with which it runs."""

    path: Path
    variant: Variant


def compare_answers(
    before: Side, after: Side, samples: Path, answers: Answers, *, cases: int
) -> SampleComparison:
    """Run both models on at most ``cases`` samples.

    Raises PublisherError ``golden_mismatch`` for samples that do not fit one of the models, and the
    errors of the models.
    """
    facts = inspect_model(before.path), inspect_model(after.path)
    read = [read_samples(samples, one, cases) for one in facts]
    made = [
        _answers(side, given, answers) for side, given in zip((before, after), read, strict=True)
    ]
    output = _output(facts[0])
    if output.name not in made[1]:
        raise PublisherError(
            "golden_mismatch",
            f"Only the first model has an output {output.name!r}, so answers cannot be compared.",
            field="samples",
        )
    is_classes = output in class_scores(facts[0])
    agreement = _agreement(made[0][output.name], made[1][output.name], is_classes=is_classes)
    count = len(made[0][output.name])
    data = _data(read[0], output, is_classes=is_classes)
    if data is None:
        return SampleComparison(cases=count, agreement=agreement)
    metric = metric_for(data.task, output.name)
    old, new = (_measured(evaluate(metric, data, one), one) for one in made)
    verdict = judge_accuracy(old, new, _KEEP)
    return SampleComparison(
        cases=count,
        agreement=agreement,
        metric=metric.name,
        accuracy=verdict.proof,
        text=verdict.text,
    )


def _answers(side: Side, given: Samples, answers: Answers) -> dict[str, NDArray[Any]]:
    with TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        arrays: dict[str, Any] = {f"input.{name}": array for name, array in given.inputs.items()}
        np.savez(inputs, allow_pickle=False, **arrays)
        made = answers(side.variant, side.path, inputs)
    return {name.removeprefix("output."): array for name, array in made.items()}


def _output(facts: ModelFacts) -> TensorSpec:
    scores = class_scores(facts)
    return scores[0] if scores else facts.outputs[0]


def _agreement(one: NDArray[Any], other: NDArray[Any], *, is_classes: bool) -> float:
    if one.shape != other.shape:
        return 0.0
    if is_classes:
        return float(np.mean(one.argmax(axis=-1) == other.argmax(axis=-1)))
    if one.dtype.kind not in "fiu":
        same = one == other
    else:
        same = np.isclose(
            one.astype(np.float64), other.astype(np.float64), rtol=_CLOSE[0], atol=_CLOSE[1]
        )
    return float(np.mean(same.reshape(len(same), -1).all(axis=1)))


def _data(samples: Samples, output: TensorSpec, *, is_classes: bool) -> EvaluationData | None:
    """The right answers, where their form says the task: class numbers, or values."""
    truth = samples.truths.get(output.name, samples.truth)
    if truth is None:
        return None
    if is_classes and truth.dtype.kind in "iu" and truth.size == len(truth):
        return EvaluationData("classification", samples.inputs, {"label": truth.reshape(-1)})
    if is_classes or truth.dtype.kind not in "fiu":
        return None
    return EvaluationData("regression", samples.inputs, {output.name: truth})


def _measured(score: Score, made: Mapping[str, NDArray[Any]]) -> Measurement:
    """The fields of a measurement that a comparison of accuracy reads. Latency is not measured."""
    digest = arrays_digest(made)
    return Measurement(
        recipe=Recipe(runtime="onnx"),
        sha256=digest,
        size_bytes=0,
        compressed_bytes=0,
        delta_bytes=None,
        value=score.value,
        cases=score.cases,
        resampled=score.resampled,
        latency=_NO_LATENCY,
        peak_memory_bytes=0,
        batch=1,
        outputs_digest=digest,
    )
