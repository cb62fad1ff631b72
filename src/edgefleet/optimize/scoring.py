"""Scores the answers of a candidate against the right ones, by the metric of the task."""

import inspect
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.evaluation_data import Arrays, EvaluationData, Metric
from edgefleet.optimize.samples import Array
from edgefleet.serving.causes import cause
from edgefleet.serving.limits import DETAIL_CHARS

LABEL = "label"


@dataclass(frozen=True, slots=True)
class Score:
    """The metric over all cases, and the scores of single cases where it is their mean."""

    value: float
    cases: tuple[float, ...]


def score(data: EvaluationData, output: str, outputs: Arrays, metric: Metric | None) -> Score:
    """The score of the answers. ``output`` is the one that is judged by the metric of the task.

    Raises PublisherError ``evaluation_invalid`` if the metric fails, or the task has none.
    """
    if metric is not None:
        return Score(_own(metric, outputs, data.truth), ())
    made = outputs[output]
    match data.task:
        case "classification":
            cases: Array = _right(made, data.truth[LABEL])
        case "regression" | "none":
            cases = _mean_over_case(-np.abs(_wide(made) - _wide(_truth(data, output))))
        case "embedding":
            cases = _cosines(_wide(made), _wide(_truth(data, output)))
        case "text":
            equal = np.asarray(made == _truth(data, output))
            cases = np.asarray(equal.reshape(len(made), -1).all(axis=1), np.float64)
        case other:
            raise PublisherError(
                "evaluation_invalid",
                f"There is no built-in metric for {other}.",
                field="metric",
                hint="Pass metric= to edgefleet.optimize.optimize(): a function of outputs and "
                "truths, where larger is better.",
            )
    return Score(float(np.mean(cases)), tuple(map(float, cases)))


def metric_key(metric: Metric | None) -> str | None:
    """What tells one metric of a publisher from another: its source. None: that of the task."""
    if metric is None:
        return None
    try:
        text = inspect.getsource(metric)
    except (OSError, TypeError):
        text = repr(metric)
    return sha256(text.encode()).hexdigest()


def _own(metric: Metric, outputs: Arrays, truth: Arrays) -> float:
    try:
        value = float(metric(outputs, truth))
    except Exception as error:  # code of the publisher
        raise PublisherError(
            "evaluation_invalid",
            f"The metric failed: {cause(error, DETAIL_CHARS)}",
            field="metric",
            hint="Try it on the outputs and the truths of a few cases.",
        ) from error
    if not np.isfinite(value):
        raise PublisherError(
            "evaluation_invalid", f"The metric gave {value}, not a number.", field="metric"
        )
    return value


def _truth(data: EvaluationData, output: str) -> Array:
    if output not in data.truth:
        raise PublisherError(
            "evaluation_invalid",
            f"There are no right answers for the output {output!r}.",
            field=f"truth.{output}",
        )
    return data.truth[output]


def _right(scores: Array, labels: Array) -> Array:
    """1 where the highest score is that of the label. An answer with NaN is wrong."""
    flat: Array = scores.reshape(len(scores), -1)
    right = (flat.argmax(axis=1) == labels) & ~np.isnan(flat).any(axis=1)
    return np.asarray(right, np.float64)


def _wide(array: Array) -> Array:
    return array.reshape(len(array), -1).astype(np.float64)


def _mean_over_case(array: Array) -> Array:
    found: Array = array.mean(axis=1)
    return found


def _cosines(made: Array, wanted: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(wanted, axis=1)
        found: Array = np.nan_to_num((made * wanted).sum(axis=1) / lengths, nan=-1.0)
    return found
