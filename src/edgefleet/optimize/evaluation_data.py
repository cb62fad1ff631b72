"""Data on which candidates are calibrated and judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgefleet.optimize.samples import Array
from edgefleet.protocol.release import Task

Arrays = Mapping[str, Array]

Metric = Callable[[Arrays, Arrays], float]
"""The value of a metric from outputs and truths (by output, cases first); larger is better."""


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """Inputs by the names of the model, cases first, with the right answers.

    ``truth`` has one array for each output that is judged, or one that is called ``label``.
    """

    task: Task
    inputs: Arrays
    truth: Arrays

    def __len__(self) -> int:
        return min(map(len, self.inputs.values()))


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """Inputs by the names of the model, cases first. They need no right answers."""

    inputs: Arrays

    def __len__(self) -> int:
        return min(map(len, self.inputs.values()))
