"""Checks of calibration and evaluation data against the inputs of a model."""

from typing import Final, Literal

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import counted
from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.samples import Array
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.golden_set import NPY_TYPES

Purpose = Literal["calibration", "evaluation"]

_PIECE: Final = 1 << 22  # values that are checked at once
_LEAST_CASES: Final = 50  # with fewer, ranges say too little
_CASES: Final = 1_000  # compared, of each of the two
_OUTSIDE: Final = 0.25
_SLACK: Final = 0.01


def check_inputs(inputs: Arrays, specs: tuple[TensorSpec, ...], purpose: Purpose) -> None:
    """Check that the arrays are cases of the inputs of a model.

    Raises PublisherError ``calibration_invalid`` or ``evaluation_invalid``. Its field is the input,
    its hint the fix.
    """
    for spec in specs:
        if spec.name not in inputs:
            raise data_error(
                purpose,
                spec.name,
                f"There is no such array. The model has the inputs {_names(specs)}; the data has "
                f"{', '.join(sorted(inputs)) or 'no array'}.",
                f"Save the array under the name of the input: numpy.savez(file, {spec.name}=...).",
            )
    if unknown := sorted(set(inputs) - {spec.name for spec in specs}):
        raise data_error(
            purpose,
            unknown[0],
            f"The model has no such input. Its inputs are {_names(specs)}.",
            "Rename the array, or leave it out.",
        )
    counts = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
    if not (least := min(counts.values())) or least != max(counts.values()):
        name = min(counts, key=lambda one: counts[one])
        told = "There are no cases." if not least else f"The inputs differ in cases: {counts}."
        raise data_error(
            purpose, name, told, "Give at least one case, and as many of each input, cases first."
        )
    for spec in specs:
        _check_one(inputs[spec.name], spec, purpose)


def data_error(purpose: Purpose, name: str, message: str, hint: str) -> PublisherError:
    """The typed error of the data. ``name`` is the input or the array."""
    return PublisherError(f"{purpose}_invalid", message, field=name, hint=hint)


def _check_one(array: Array, spec: TensorSpec, purpose: Purpose) -> None:
    wanted = spec.shape[1:]
    if array.ndim != len(spec.shape) or any(
        size not in (got, -1) for got, size in zip(array.shape[1:], wanted, strict=True)
    ):
        raise data_error(
            purpose,
            spec.name,
            f"A case has the shape {list(array.shape[1:])}, the input {_open(wanted)}.",
            f"Prepare the cases as in the training: {_open(spec.shape)}, cases first.",
        )
    if spec.datatype == "BYTES":
        return
    if array.dtype != np.dtype(NPY_TYPES[spec.datatype]):
        raise data_error(
            purpose,
            spec.name,
            f"The array is {array.dtype}, the input {spec.datatype}.",
            f"Convert it: array.astype('{np.dtype(NPY_TYPES[spec.datatype]).name}').",
        )
    if array.dtype.kind == "f" and (case := _first_not_finite(array)) is not None:
        raise data_error(
            purpose,
            spec.name,
            f"Case {case} has a value that is not a finite number.",
            "Leave out cases with NaN or infinite values: one of them spoils every range.",
        )


def _first_not_finite(array: Array) -> int | None:
    rows = max(1, _PIECE // max(1, array[:1].size))
    for start in range(0, len(array), rows):
        piece = array[start : start + rows]
        good = np.isfinite(piece).reshape(len(piece), -1).all(axis=1)
        if not good.all():
            return start + int(np.argmin(good))
    return None


def counted_cases(inputs: Arrays) -> str:
    """``200 cases``."""
    return counted(min(map(len, inputs.values())), "case")


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(spec.name for spec in specs)


def _open(shape: tuple[int, ...]) -> str:
    return str(["any" if size == -1 else size for size in shape]).replace("'", "")


def check_alike(calibration: Arrays, evaluation: Arrays) -> None:
    """Check that the two were prepared alike, as far as the ranges of their values show it.

    Of exchangeable data few values of one lie outside of the range of the other: with 50 cases
    more than a quarter about once in 100,000 times. Pixels from 0 to 255 beside normalised ones,
    or from 0 to 1 beside -1 to 1, are found; other channels' order or means are not.

    Raises PublisherError ``calibration_invalid`` with the input.
    """
    for name, array in calibration.items():
        other = evaluation[name]
        if array.dtype.kind != "f" or min(len(array), len(other)) < _LEAST_CASES:
            continue
        one, two = _some(array), _some(other)
        if max(_outside(one, two), _outside(two, one)) <= _OUTSIDE:
            continue
        raise data_error(
            "calibration",
            name,
            f"The values are from {one.min():.4g} to {one.max():.4g}, and in the evaluation data "
            f"from {two.min():.4g} to {two.max():.4g}: the two are not prepared alike.",
            "Prepare both as in the training, with the same scale, mean and deviation. Ranges from "
            "other values than the device sees cost accuracy.",
        )


def _some(array: Array) -> Array:
    """At most 1,000 cases, evenly chosen."""
    rows = np.unique(np.linspace(0, len(array) - 1, min(len(array), _CASES)).astype(np.int64))
    return np.asarray(array[rows])


def _outside(values: Array, other: Array) -> float:
    """The share of values that are not in the range of ``other``, with a little slack."""
    low, high = float(other.min()), float(other.max())
    slack = _SLACK * (high - low)
    return float(((values < low - slack) | (values > high + slack)).mean())
