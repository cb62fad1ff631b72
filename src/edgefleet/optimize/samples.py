"""Reads a publisher's samples: inputs with the right answers, in an ``.npz`` file.

Names may be short: the only input of a model may be called as one likes, and the truth ``y``,
``label``, ``labels``, ``target`` or ``truth``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.bf16 import rounded, widened
from edgefleet.serving.golden_set import NPY_TYPES, read_npz
from edgefleet.serving.model_file import ModelFacts

_TRUTH: Final = ("y", "label", "labels", "target", "targets", "truth")
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs by name, in the datatypes of the model. ``truth`` is the array of right answers.

    ``truths`` and ``outputs`` are arrays that name their output: ``truth.<name>`` and
    ``output.<name>``.
    """

    inputs: Mapping[str, Array]
    truth: Array | None
    truths: Mapping[str, Array]
    outputs: Mapping[str, Array]


def read_samples(
    path: Path, facts: ModelFacts, cases: int, *, most_bytes: int | None = None
) -> Samples:
    """At most ``cases`` samples, evenly chosen. Raises PublisherError ``golden_mismatch``.

    ``most_bytes`` is the limit of the file and of its arrays. None: the limits of a golden set.
    """
    limits = {} if most_bytes is None else {"most_bytes": most_bytes, "unpacked_bytes": most_bytes}
    return samples_of(read_npz(path, **limits), facts, cases)


def samples_of(arrays: dict[str, Array], facts: ModelFacts, cases: int) -> Samples:
    """At most ``cases`` samples from named arrays, which are taken out of ``arrays``.

    Raises PublisherError ``golden_mismatch``.
    """
    truth_name = next((name for name in _TRUTH if name in arrays), None)
    truth = arrays.pop(truth_name) if truth_name else None
    truths = {spec.name: arrays.pop(f"truth.{spec.name}") for spec in facts.outputs
              if f"truth.{spec.name}" in arrays}  # fmt: skip
    outputs = {spec.name: arrays.pop(f"output.{spec.name}") for spec in facts.outputs
               if f"output.{spec.name}" in arrays}  # fmt: skip
    inputs = _inputs(arrays, facts.inputs)
    count = min(len(array) for array in inputs.values())
    named = [*inputs.items(), *truths.items(), *outputs.items()]
    if truth_name and truth is not None:
        named.append((truth_name, truth))
    for name, array in named:
        if array.ndim == 0 or len(array) != count:
            raise _mismatch(name, f"It has the shape {array.shape}, and there are {count} samples.")
    rows = evenly(count, cases)
    return Samples(
        inputs={spec.name: cast(inputs[spec.name][rows], spec, spec.name) for spec in facts.inputs},
        truth=None if truth is None else truth[rows],
        truths={name: array[rows] for name, array in truths.items()},
        outputs={
            spec.name: cast(outputs[spec.name][rows], spec, f"output.{spec.name}")
            for spec in facts.outputs
            if spec.name in outputs
        },
    )


def named_inputs(path: Path, most_bytes: int) -> dict[str, Array]:
    """The arrays of inputs by name, without a model that says which they are."""
    arrays = read_npz(path, most_bytes=most_bytes, unpacked_bytes=most_bytes)
    return {
        name.removeprefix("input."): array
        for name, array in arrays.items()
        if name not in _TRUTH and not name.startswith(("truth.", "output."))
    }


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of ``count`` rows, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def cast(array: Array, spec: TensorSpec, name: str) -> Array:
    """The array in the datatype and the number of axes of a tensor.

    Raises PublisherError ``golden_mismatch`` if that loses more than precision.
    """
    if array.ndim == 1 and len(spec.shape) == 2:
        array = array[:, None]
    fits = array.ndim == len(spec.shape) and all(
        want in (-1, size) for size, want in zip(array.shape[1:], spec.shape[1:], strict=True)
    )
    if not fits:
        raise _mismatch(
            name, f"The array has the shape {array.shape}, the tensor of the model {spec.shape}."
        )
    if spec.datatype == "BYTES":
        return array.astype(np.str_)
    wanted = np.dtype(NPY_TYPES[spec.datatype])
    whole = array.dtype.kind in "iu" and wanted.kind in "iu"
    if not whole and not np.can_cast(array.dtype, wanted, "same_kind"):
        raise _mismatch(name, f"The array is {array.dtype}, the tensor {spec.datatype}.")
    made = np.ascontiguousarray(array.astype(wanted))
    if spec.datatype == "BF16":
        made = np.asarray(widened(rounded(array)))
    if whole and not np.array_equal(made, array):
        raise _mismatch(name, f"Values of the array do not fit into {spec.datatype}.")
    return made


def _inputs(arrays: dict[str, Array], specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    named = {name.removeprefix("input."): array for name, array in arrays.items()}
    if len(specs) == 1 and len(named) == 1:
        return {specs[0].name: next(iter(named.values()))}
    wanted = [spec.name for spec in specs]
    if missing := [name for name in wanted if name not in named]:
        raise _mismatch(
            missing[0],
            f"There is no such array. The inputs of the model are {', '.join(wanted)}; the arrays "
            f"of the samples are {', '.join(named) or 'none'}.",
        )
    if unknown := sorted(named.keys() - set(wanted)):
        raise _mismatch(
            unknown[0],
            "The model has no such input. Call the right answers y, or truth.<output>.",
        )
    return {name: named[name] for name in wanted}


def _mismatch(field: str, message: str) -> PublisherError:
    return PublisherError(
        "golden_mismatch",
        message,
        field=field,
        hint="Save the samples with numpy.savez(file, X=inputs, y=right_answers), samples first.",
    )
