"""Metrics of classifiers: top-1 accuracy and macro F1."""

from dataclasses import dataclass

import numpy as np

from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.metrics.score import (
    Score,
    array_of,
    failed,
    mean_of,
    of_resamples,
    same_cases,
)
from edgefleet.optimize.paired import Counts, Floats
from edgefleet.optimize.samples import Array
from edgefleet.serving.comparisons import classes_of

_LABEL = "label"


@dataclass(frozen=True, slots=True)
class Top1Accuracy:
    """The share of cases whose highest score is that of their label. Scores of cases: 0 or 1."""

    output: str
    name: str = "top1"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        found, labels = _found_and_labels(self.name, self.output, got, truth)
        return mean_of((found == labels) & (found >= 0))


@dataclass(frozen=True, slots=True)
class MacroF1:
    """The mean over the classes of ``2 tp / (2 tp + fp + fn)``.

    A class that is neither in the labels nor in the answers is left out, in each resample. An
    answer that is not a number is of no class.
    """

    output: str
    name: str = "f1"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        found, labels = _found_and_labels(self.name, self.output, got, truth)
        classes = int(max(found.max(), labels.max())) + 1
        valid, hit = found >= 0, found == labels

        def values(counts: Counts) -> Floats:
            return np.array([row_value(row) for row in counts])

        def row_value(row: Counts) -> float:
            right = np.bincount(labels[hit], row[hit], classes)
            answered = np.bincount(found[valid], row[valid], classes)
            wanted = np.bincount(labels, row, classes)
            either = answered + wanted  # 2 tp + fp + fn
            present = either > 0
            return float((2 * right[present] / either[present]).mean())

        return of_resamples(values, len(labels))


def _found_and_labels(name: str, output: str, got: Arrays, truth: Arrays) -> tuple[Array, Array]:
    """The answered class of each case, -1 for none, and its label."""
    scores = array_of(name, got, output, "output")
    key = _LABEL if _LABEL in truth else output
    labels = array_of(name, truth, key, "right answer")
    same_cases(name, scores, labels)
    if labels.dtype.kind not in "iu" or labels.size != len(labels):
        raise failed(
            name,
            f"the labels are {labels.dtype} of shape {labels.shape}; one whole number per case is "
            "needed.",
        )
    flat = labels.reshape(-1).astype(np.int64)
    if flat.min() < 0:
        raise failed(name, f"the label {flat.min()} is negative.")
    return classes_of(scores), flat
