"""A metric that is a callable of the publisher."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import counted
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.metrics.score import Score, failed, mean_of, of_resamples
from edgefleet.optimize.paired import Counts, Floats
from edgefleet.optimize.samples import Array

RESAMPLES: Final = 200  # each is a call
_HINT: Final = (
    "Return a finite number, larger for better, or an array with one such number per case. It is "
    "also called on resamples of the cases, in which cases repeat."
)


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """Calls ``function(outputs, truth)``, which returns the value, or one score per case.

    With scores per case the value is their mean and one call is enough. Otherwise the function is
    also called on 200 resamples of the cases.
    """

    function: Callable[[Arrays, Arrays], object]

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def score(self, got: Arrays, truth: Arrays) -> Score:
        cases = min(map(len, got.values()), default=0)
        whole = self._call(got, truth)
        if whole.ndim == 1 and len(whole) == cases and cases > 1:
            return mean_of(whole)
        if whole.size != 1:
            raise failed(
                self.name,
                f"it gave an array of shape {whole.shape} for {counted(cases, 'case')}.",
                _HINT,
            )

        def values(counts: Counts) -> Floats:
            return np.array([self._resample(got, truth, row) for row in counts])

        return of_resamples(values, cases, RESAMPLES)

    def _resample(self, got: Arrays, truth: Arrays, row: Counts) -> float:
        rows = np.repeat(np.arange(len(row)), row)
        value = self._call(_taken(got, rows), _taken(truth, rows))
        return float(value.reshape(-1)[0])

    def _call(self, got: Arrays, truth: Arrays) -> Array:
        """Its result as numbers. Raises PublisherError ``metric_failed``."""
        try:
            made = np.asarray(self.function(got, truth), np.float64)
        except PublisherError:
            raise
        except Exception as error:  # code of the publisher
            raise failed(self.name, f"{type(error).__name__}: {error}", _HINT) from error
        if not np.isfinite(made).all():
            raise failed(self.name, f"it gave {made}, which is not finite.", _HINT)
        return made


def _taken(arrays: Arrays, rows: Array) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}
