"""Gives calibration data to the calibrators of ONNX Runtime, batch by batch."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from edgefleet.optimize.evaluation_data import Arrays, CalibrationData
from edgefleet.optimize.samples import Array
from edgefleet.protocol.release import TensorSpec, fixed_batch

BATCH: Final = 16


class BatchReader:
    """A ``CalibrationDataReader`` of ONNX Runtime. Its length and ranges are in batches.

    The calibrators for entropy and percentile stack the outputs of all batches of a range. They
    fail if one is smaller, and hold all in memory. So a range is one batch (``STRIDE``), and the
    last batch may be ragged. A model with a fixed batch gets full ones: cases are repeated from the
    first.
    """

    STRIDE: Final = 1

    def __init__(self, calibration: CalibrationData, inputs: tuple[TensorSpec, ...]) -> None:
        self._inputs: Arrays = {spec.name: calibration.inputs[spec.name] for spec in inputs}
        self._cases = len(calibration)
        fixed = fixed_batch(inputs)
        self._batch, self._filled = fixed or BATCH, fixed is not None
        self._next, self._end = 0, len(self)

    def __len__(self) -> int:
        return math.ceil(self._cases / self._batch)

    def set_range(self, start_index: int, end_index: int) -> None:
        """The batches that ``get_next`` gives from now on."""
        self._next, self._end = start_index, min(end_index, len(self))

    def get_next(self) -> Mapping[str, Array] | None:
        """The next batch, None after the last."""
        if self._next >= self._end:
            return None
        first = self._next * self._batch
        self._next += 1
        last = first + self._batch
        rows = np.arange(first, last if self._filled else min(last, self._cases)) % self._cases
        return {name: np.ascontiguousarray(array[rows]) for name, array in self._inputs.items()}

    def __iter__(self) -> "BatchReader":
        return self

    def __next__(self) -> Mapping[str, Array]:
        if (batch := self.get_next()) is None:
            raise StopIteration
        return batch
