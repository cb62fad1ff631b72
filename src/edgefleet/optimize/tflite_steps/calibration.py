"""Calibration data as batches of the model's own size."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from edgefleet.optimize.data_checks import check_inputs
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.samples import Array
from edgefleet.protocol.release import TensorSpec

_BATCH: Final = 32  # cases of a run of a model whose batch is free


def batches(
    calibration: CalibrationData, specs: tuple[TensorSpec, ...], names: Mapping[str, str]
) -> list[dict[str, Array]]:
    """The cases in batches, under the names ``names[spec.name]``.

    A model with a fixed batch gets exactly that many cases a run: the last run is filled up with
    its own cases again, which changes no minimum and no maximum. Raises PublisherError
    ``calibration_invalid`` with the name of the input for data that do not fit.
    """
    check_inputs(calibration.inputs, specs, "calibration")
    fixed = {spec.shape[0] for spec in specs} - {-1}
    size = min(fixed, default=_BATCH)
    return [
        {
            names[name]: _whole(array[start : start + size], size if fixed else 0)
            for name, array in calibration.inputs.items()
        }
        for start in range(0, len(calibration), size)
    ]


def _whole(part: Array, size: int) -> Array:
    """The part with ``size`` cases, its own repeated. With a size of 0, as it is."""
    rows = part[np.arange(size) % len(part)] if size and len(part) < size else part
    return np.ascontiguousarray(rows)
