"""InferTensorContents: tensors as typed fields of a protocol buffer, read and written.

Numbers are packed: one field has all of them. FP16 and BF16 have no typed form.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import Datatype
from edgefleet.serving.binary_tensors import from_binary
from edgefleet.serving.declared import bad_tensor
from edgefleet.serving.grpc.protobuf import fields, sized, varint
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.runtime import NUMPY_TYPES, Tensor

_FIELDS: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "INT8": 2,
    "INT16": 2,
    "INT32": 2,
    "INT64": 3,
    "UINT8": 4,
    "UINT16": 4,
    "UINT32": 4,
    "UINT64": 5,
    "FP32": 6,
    "FP64": 7,
    "BYTES": 8,
}
"""The number of the field that has the values of a datatype."""

_NAMES: Final = (
    "", "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents",
    "fp32_contents", "fp64_contents", "bytes_contents",
)  # fmt: skip
_FLOATS: Final = frozenset({6, 7})
_VARINT_BYTES: Final = 10
_LENGTH_BYTES: Final = 4


def has_typed_form(datatype: str) -> bool:
    """Whether the values of ``datatype`` have a field of their own."""
    return datatype in _FIELDS


def read_contents(
    name: str, contents: memoryview, datatype: Datatype, shape: tuple[int, ...]
) -> Tensor:
    """The input ``name`` of typed contents. Raises Refused, whose field is the input."""
    wanted = _FIELDS.get(datatype)
    if wanted is None:
        raise Refused(
            Refusal.DATATYPE,
            f"{datatype} has no typed contents.",
            field=name,
            hint="Send raw_input_contents.",
            sent=f"{shown(name)} as typed contents",
            wanted=f"raw contents of {datatype}",
        )
    pieces: list[bytes | memoryview] = []
    for number, _, value in fields(contents):
        if number != wanted:
            raise bad_tensor(
                name,
                f"{datatype} belongs in {_NAMES[wanted]}, not in "
                f"{_NAMES[number] if 0 < number < len(_NAMES) else f'field {number}'}.",
            )
        if isinstance(value, int):
            pieces.append(varint(value))
            continue
        if number == 8:
            pieces.append(len(value).to_bytes(_LENGTH_BYTES, "little"))
        pieces.append(value)
    data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    if wanted == 8 or wanted in _FLOATS:
        return from_binary(name, data, datatype, shape)
    numbers = _varints(name, data)
    if len(numbers) != math.prod(shape):
        raise bad_tensor(
            name,
            f"{_NAMES[wanted]} has {len(numbers)} values; {list(shape)} needs {math.prod(shape)}.",
        )
    return _as_type(name, numbers, datatype).reshape(shape)


def _as_type(name: str, numbers: "np.ndarray[Any, Any]", datatype: Datatype) -> Tensor:
    dtype = NUMPY_TYPES[datatype]
    if dtype.kind == "b":
        return numbers.astype(np.bool_)
    if dtype.kind == "i":
        numbers = numbers.view(np.int64)
    array = numbers.astype(dtype)
    if not np.array_equal(array, numbers):
        raise bad_tensor(name, f"A value does not fit {datatype}.")
    return array


def _varints(name: str, data: memoryview) -> "np.ndarray[Any, Any]":
    """The numbers of a packed field, without signs."""
    raw = np.frombuffer(data, np.uint8)
    if not raw.size:
        return np.zeros(0, np.uint64)
    last = np.flatnonzero(raw < 0x80)
    if not last.size or last[-1] != raw.size - 1:
        raise bad_tensor(name, "The contents end in the middle of a number.")
    first = np.concatenate((np.zeros(1, last.dtype), last[:-1] + 1))
    sizes = last - first + 1
    longest = int(sizes.max())
    if longest > _VARINT_BYTES:
        raise bad_tensor(name, "The contents have a number of more than 64 bits.")
    numbers = (raw[first] & 0x7F).astype(np.uint64)
    for place in range(1, longest):
        longer = np.flatnonzero(sizes > place)
        parts = (raw[first[longer] + place] & 0x7F).astype(np.uint64)
        numbers[longer] |= parts << np.uint64(7 * place)
    return numbers


def encode_contents(array: Tensor, datatype: Datatype) -> bytes:
    """The InferTensorContents of ``array``, whose datatype has a typed form."""
    number = _FIELDS[datatype]
    if number == 8:
        items = [one.encode() if isinstance(one, str) else bytes(one) for one in array.ravel()]
        return b"".join(sized(number, one) for one in items)
    if number in _FLOATS:
        return sized(number, np.ascontiguousarray(array, NUMPY_TYPES[datatype]).tobytes())
    return sized(number, b"".join(map(varint, array.ravel().tolist())))
