"""Metrics of regressors and embeddings: RMSE, MAE and cosine."""

from dataclasses import dataclass
from typing import Final

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
from edgefleet.optimize.samples import Array
from edgefleet.serving.comparisons import cosines

_LARGEST: Final = 1e15  # an error above it, or that is no number, counts as this


@dataclass(frozen=True, slots=True)
class NegativeRmse:
    """``-sqrt(mean squared error)`` over all cases and values of ``output``.

    ``keep`` = 0.99 allows an RMSE of 1/0.99 times that of the baseline.
    """

    output: str
    name: str = "rmse"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        squares = (_errors(self.name, self.output, got, truth) ** 2).mean(axis=1)
        size = len(squares)
        return of_resamples(lambda counts: -np.sqrt(counts @ squares / size), size)


@dataclass(frozen=True, slots=True)
class NegativeMae:
    """``-mean absolute error``. The score of a case is that of its values."""

    output: str
    name: str = "mae"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        return mean_of(-_errors(self.name, self.output, got, truth).mean(axis=1))


@dataclass(frozen=True, slots=True)
class MeanCosine:
    """The mean cosine of the vectors of ``output`` with the wanted ones.

    A vector that is not finite, or has no length, has the cosine -1.
    """

    output: str
    name: str = "cosine"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        one, other = _pair(self.name, self.output, got, truth)
        return mean_of(np.clip(cosines(one, other), -1.0, 1.0))


def _errors(name: str, output: str, got: Arrays, truth: Arrays) -> Array:
    """Absolute errors of shape [cases, values]."""
    one, other = _pair(name, output, got, truth)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(one.astype(np.float64) - other.astype(np.float64))
    finite = np.nan_to_num(errors, nan=_LARGEST, posinf=_LARGEST)
    return np.asarray(np.minimum(finite, _LARGEST)).reshape(len(errors), -1)


def _pair(name: str, output: str, got: Arrays, truth: Arrays) -> tuple[Array, Array]:
    one = array_of(name, got, output, "output")
    other = array_of(name, truth, output, "right answer")
    same_cases(name, one, other)
    if one.size != other.size:
        raise failed(name, f"an answer has the shape {one.shape[1:]}, the truth {other.shape[1:]}.")
    return one.reshape(len(one), -1), other.reshape(len(other), -1)
