"""The tensors that a release declares, and the errors for others."""

import math
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from edgefleet.base.errors import DeviceError
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import TensorSpec
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.runtime import NUMPY_TYPES, Tensor

_NAMES: Final = 3  # of tensors in the text of a refusal
_FORMS: Final = 64
_PACKED: Final = "fd"  # codes of FP32 and FP64 in NumPy and in struct
_PACKED_VALUES: Final = 1_024


class InputForm(msgspec.Struct, frozen=True):
    """A shape that a release accepts for an input. ``count`` is the number of elements.

    ``pack`` makes the bytes of a few floats, in half the time of NumPy. None for others.
    """

    spec: TensorSpec
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    count: int
    pack: Callable[..., bytes] | None


class DeclaredInputs:
    """The inputs of a release by name, and the forms of them that requests had.

    ``kind`` is the kind of all their datatypes, as NumPy names it. Empty if they have several.
    """

    def __init__(self, specs: Iterable[TensorSpec], max_batch: int) -> None:
        self.by_name = {spec.name: spec for spec in specs}
        self.max_batch = max_batch
        kinds = {NUMPY_TYPES[spec.datatype].kind for spec in self.by_name.values()}
        self.kind = kinds.pop() if len(kinds) == 1 else ""
        self.form = lru_cache(maxsize=_FORMS)(self._form)

    def _form(self, name: str, datatype: str, shape: tuple[int, ...]) -> InputForm:
        """The form of an input, which is checked the first time. Raises Refused."""
        spec = self.by_name.get(name)
        if spec is None:
            raise unknown_input(name, self.by_name)
        check_shape(name, datatype, shape, spec, self.max_batch)
        dtype, count = NUMPY_TYPES[spec.datatype], math.prod(shape)
        return InputForm(spec, shape, dtype, count, packer(count, dtype))


def packer(count: int, dtype: "np.dtype[Any]") -> Callable[..., bytes] | None:
    """A function that makes the bytes of so many floats. None for others, and for many."""
    if dtype.char not in _PACKED or not 0 < count <= _PACKED_VALUES:
        return None
    return _struct(count, dtype.char).pack


@lru_cache(maxsize=128)
def _struct(count: int, kind: str) -> struct.Struct:
    return struct.Struct(f"<{count}{kind}")


def check_inputs(arrays: Mapping[str, Tensor], known: Collection[str]) -> None:
    """Raises Refused if an input is missing, or if the inputs are not of one batch.

    ``arrays`` are known inputs.
    """
    if len(arrays) < len(known):
        missing = sorted(set(known) - arrays.keys())
        raise Refused(
            Refusal.MISSING_INPUT,
            "This input is missing.",
            field=missing[0],
            sent=_names(arrays),
            wanted=f"{_names(missing)}, too",
        )
    if len(arrays) > 1 and len({each.shape[0] for each in arrays.values() if each.ndim}) > 1:
        raise bad_tensor("inputs", "All inputs must have the same first size, the batch.")


def batch_of(inputs: Mapping[str, Tensor]) -> int:
    """The number of items of a request: the first size of its first input. 1 for a scalar."""
    for array in inputs.values():
        return len(array) if array.ndim else 1
    return 1


def unknown_input(name: str, known: Iterable[str]) -> Refused:
    """The error for an input that the model does not have."""
    return Refused(
        Refusal.UNKNOWN_INPUT,
        f"This input is unknown; the model has inputs {sorted(known)}.",
        field=name,
        sent=shown(name),
        wanted=_names(known),
    )


def check_outputs(specs: Sequence[TensorSpec], made: Mapping[str, Tensor]) -> None:
    """Raises DeviceError ``inference_failed`` for an output that the manifest does not describe."""
    for spec in specs:
        tensor = made.get(spec.name)
        if tensor is None or _is_of(tensor, spec):
            continue
        raise DeviceError(
            "inference_failed",
            f"The model failed: output {spec.name} is {tensor.dtype} {list(tensor.shape)}, the "
            f"manifest says {spec.datatype} {list(spec.shape)}.",
        )


def _is_of(tensor: Tensor, spec: TensorSpec) -> bool:
    return tensor.dtype == NUMPY_TYPES[spec.datatype] and _fits(tensor.shape, spec.shape)


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    """Whether ``shape`` has the ``declared`` sizes, of which -1 is any size."""
    if len(shape) != len(declared) or (shape and min(shape) < 0):
        return False
    if shape[1:] == declared[1:]:  # almost every tensor: at most the batch is free
        return not shape or declared[0] in (-1, shape[0])
    return all(wanted in (size, -1) for size, wanted in zip(shape, declared, strict=True))


def check_shape(
    name: str, datatype: str, shape: tuple[int, ...], spec: TensorSpec, max_batch: int
) -> None:
    """Raises Refused if an input of this datatype and shape is not as ``spec`` says."""
    if datatype != spec.datatype:
        raise Refused(
            Refusal.DATATYPE,
            f"The model needs {spec.datatype}, not {datatype}.",
            field=name,
            sent=f"{shown(name)} as {shown(datatype)}",
            wanted=spec.datatype,
        )
    if not _fits(shape, spec.shape) or 0 in shape:
        raise Refused(
            Refusal.SHAPE,
            f"The model needs shape {list(spec.shape)}, not {list(shape)}.",
            field=name,
            sent=f"{shown(name)} of shape {list(shape)}",
            wanted=f"{list(spec.shape)}",
        )
    if spec.shape[:1] == (-1,) and shape[0] > max_batch:
        raise Refused(
            Refusal.SHAPE,
            f"The batch has {shape[0]} items; {max_batch} are allowed.",
            field=name,
            sent=f"batches of {shape[0]}",
            wanted=f"{max_batch} or fewer",
        )


def _names(names: Iterable[str]) -> str:
    return ", ".join(shown(name) for name in sorted(names)[:_NAMES])


def bad_tensor(name: str, message: str) -> Refused:
    """The error for a tensor whose values cannot be read."""
    return Refused(Refusal.MALFORMED, message, field=name)
