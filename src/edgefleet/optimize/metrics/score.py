"""What a metric says of the answers to evaluation data: its value, and evidence for a comparison.

Larger is better in every metric. Errors are negative: ``-RMSE``, ``-MAE``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.measurement import Resampled
from edgefleet.optimize.paired import RESAMPLES, Counts, Floats, resampled
from edgefleet.optimize.samples import Array

_HINT: Final = "Check the shapes of truth and outputs: cases first, in the same order."


@dataclass(frozen=True, slots=True)
class Score:
    """The fields of a Measurement that a metric gives.

    ``cases`` are empty unless ``value`` is their mean; then ``resampled`` is None.
    """

    value: float
    cases: tuple[float, ...] = ()
    resampled: Resampled | None = None


class Metric(Protocol):
    """A metric. Its name is for reports."""

    @property
    def name(self) -> str: ...

    def score(self, got: Arrays, truth: Arrays) -> Score:
        """The score of answers by output, cases first.

        Raises PublisherError ``metric_failed`` for truths that do not fit, or an error of a
        callable; its field is the name of the metric.
        """
        ...


def mean_of(scores: Array) -> Score:
    """The score whose value is the mean over the cases."""
    flat = scores.astype(np.float64)
    return Score(value=float(flat.mean()), cases=tuple(flat.tolist()))


def of_resamples(
    value: Callable[[Counts], Floats], cases: int, resamples: int = RESAMPLES
) -> Score:
    """The score of a metric of the whole set. ``value`` gives it for each row of case counts."""
    whole = value(np.ones((1, cases), np.int64))
    return Score(
        value=float(whole[0]),
        resampled=Resampled(values=resampled(value, cases, resamples), cases=cases),
    )


def failed(name: str, message: str, hint: str = _HINT) -> PublisherError:
    """The error of the metric ``name``."""
    return PublisherError(
        "metric_failed", f"The metric {name!r} failed: {message}", field=name, hint=hint
    )


def array_of(name: str, arrays: Arrays, key: str, what: str) -> Array:
    """``arrays[key]``. Raises PublisherError ``metric_failed``."""
    if key not in arrays:
        known = ", ".join(arrays) or "none"
        raise failed(name, f"there is no {what} {key!r}; there are {known}.")
    return arrays[key]


def same_cases(name: str, got: Array, truth: Array) -> None:
    """Raises PublisherError ``metric_failed`` unless both have one number of cases, at least 1."""
    if len(got) != len(truth) or not len(got):
        raise failed(name, f"there are {len(got)} answers and {len(truth)} right answers.")
