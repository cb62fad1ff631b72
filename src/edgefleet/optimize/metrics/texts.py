"""Metrics of texts: word and character accuracy (1 minus the error rate), and exact answers."""

from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, slots=True)
class TextAccuracy:
    """``1 - errors / wanted``, over all cases: 1 - WER of words, 1 - CER of characters.

    Errors are substitutions, deletions and insertions (the Levenshtein distance). The value is
    negative if there are more errors than words. ``keep`` is a share of this accuracy.
    """

    output: str
    unit: Literal["words", "characters"] = "words"

    @property
    def name(self) -> str:
        return "wer" if self.unit == "words" else "cer"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        one = _texts(self.name, array_of(self.name, got, self.output, "output"))
        other = _texts(self.name, array_of(self.name, truth, self.output, "right answer"))
        if len(one) != len(other) or not one:
            raise failed(self.name, f"there are {len(one)} texts and {len(other)} right ones.")
        pairs = [(self._parts(a), self._parts(b)) for a, b in zip(one, other, strict=True)]
        errors = np.array([edit_distance(a, b) for a, b in pairs], np.float64)
        wanted = np.array([len(b) for _, b in pairs], np.float64)
        if not wanted.sum():
            raise failed(self.name, "all right texts are empty.")

        def values(counts: Counts) -> Floats:
            return 1 - (counts @ errors) / np.maximum(counts @ wanted, 1)

        return of_resamples(values, len(pairs))

    def _parts(self, text: str) -> list[str]:
        return text.split() if self.unit == "words" else list(text)


@dataclass(frozen=True, slots=True)
class ExactShare:
    """The share of cases in which all values of ``output`` are equal to the wanted ones."""

    output: str
    name: str = "exact"

    def score(self, got: Arrays, truth: Arrays) -> Score:
        one = array_of(self.name, got, self.output, "output")
        other = array_of(self.name, truth, self.output, "right answer")
        same_cases(self.name, one, other)
        if one.size != other.size:
            raise failed(self.name, f"answers have the shape {one.shape}, the truth {other.shape}.")
        equal = one.reshape(len(one), -1) == other.reshape(len(other), -1)
        return mean_of(np.asarray(equal.all(axis=1)))


def edit_distance(got: list[str], wanted: list[str]) -> int:
    """The least number of substitutions, deletions and insertions from one list to the other."""
    if not got or not wanted:
        return max(len(got), len(wanted))
    codes = {part: number for number, part in enumerate({*got, *wanted})}
    target = np.array([codes[part] for part in wanted])
    ramp = np.arange(len(wanted) + 1)
    row = ramp.copy()
    for number, part in enumerate(got, start=1):
        best = np.minimum(row[1:] + 1, row[:-1] + (target != codes[part]))
        # Insertions run along the row: the least of what came before, plus one for each step.
        row = np.minimum.accumulate(np.concatenate([[number], best]) - ramp) + ramp
    return int(row[-1])


def _texts(name: str, array: Array) -> list[str]:
    """One text per case."""
    if array.dtype.kind not in "UOS" or array.size != len(array):
        raise failed(
            name, f"texts are {array.dtype} of shape {array.shape}; one per case is needed."
        )
    flat = array.reshape(-1).tolist()
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in flat]
