"""Finds the metric of a task by its name."""

from collections.abc import Callable, Mapping
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import counted
from edgefleet.optimize.evaluation_data import Arrays, EvaluationData
from edgefleet.optimize.metrics.classes import MacroF1, Top1Accuracy
from edgefleet.optimize.metrics.own import OwnMetric
from edgefleet.optimize.metrics.regions import MeanAveragePrecision, MeanIntersection
from edgefleet.optimize.metrics.score import Metric, Score, failed
from edgefleet.optimize.metrics.texts import ExactShare, TextAccuracy
from edgefleet.optimize.metrics.values import MeanCosine, NegativeMae, NegativeRmse
from edgefleet.protocol.comparisons import Comparison, MeanIou, MeanPrecision
from edgefleet.protocol.release import Task

METRICS: Final[Mapping[Task, tuple[str, ...]]] = {
    "classification": ("top1", "f1"),
    "detection": ("map",),
    "segmentation": ("iou",),
    "regression": ("rmse", "mae"),
    "embedding": ("cosine",),
    "text": ("wer", "cer", "exact"),
    "none": ("rmse", "mae", "exact"),
}
"""The names of metrics for each task. The first is the default."""


def metric_for(
    task: Task,
    output: str,
    name: str | Callable[[Arrays, Arrays], object] = "",
    comparison: Comparison | None = None,
) -> Metric:
    """The metric ``name`` of ``output``, or the default of the task, or a callable.

    ``comparison`` says where a detector has its boxes and a segmentation its classes. Raises
    PublisherError ``bad_metric`` for a name that the task does not have.
    """
    if callable(name):
        return OwnMetric(name)
    wanted = name or METRICS[task][0]
    if wanted not in METRICS[task]:
        raise PublisherError(
            "bad_metric",
            f"{wanted!r} is no metric for {task}.",
            field="metric",
            hint=f"Use {' or '.join(METRICS[task])}, or your own function of outputs and truth.",
        )
    match wanted:
        case "top1":
            return Top1Accuracy(output)
        case "f1":
            return MacroF1(output)
        case "map":
            rule = comparison if isinstance(comparison, MeanPrecision) else None
            return MeanAveragePrecision(rule or MeanPrecision(boxes=output))
        case "iou":
            classes = comparison if isinstance(comparison, MeanIou) else None
            return MeanIntersection(classes or MeanIou(output=output, class_axis=1))
        case "rmse":
            return NegativeRmse(output)
        case "mae":
            return NegativeMae(output)
        case "cosine":
            return MeanCosine(output)
        case "wer" | "cer":
            return TextAccuracy(output, "words" if wanted == "wer" else "characters")
        case _:
            return ExactShare(output)


def evaluate(metric: Metric, data: EvaluationData, got: Arrays) -> Score:
    """The score of the answers ``got`` to ``data``, for a Measurement.

    Raises PublisherError ``metric_failed``.
    """
    if not len(data):
        raise failed(metric.name, "the evaluation data has no cases.")
    if wrong := [name for name, array in got.items() if len(array) != len(data)]:
        raise failed(
            metric.name,
            f"output {wrong[0]!r} has {len(got[wrong[0]])} answers to "
            f"{counted(len(data), 'case')}.",
        )
    return metric.score(got, data.truth)
