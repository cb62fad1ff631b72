"""Tensors in Open Inference Protocol v2 JSON and in its binary tensor extension.

Source: github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md) and
the extension as Triton documents it (protocol/extension_binary_data.md), see ``binary_tensors``.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.protocol.wire import Wire, decode
from edgefleet.serving.bf16 import BF16, from_numbers, is_finite, widened
from edgefleet.serving.binary_tensors import from_binary
from edgefleet.serving.declared import (
    DeclaredInputs,
    InputForm,
    bad_tensor,
    check_inputs,
    packer,
)
from edgefleet.serving.limits import ID_CHARS, LONG_JSON_BYTES, RANK, TENSORS
from edgefleet.serving.long_json import decode_numbers
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.runtime import NUMPY_TYPES, Tensor

D = TypeVar("D")

Parameters = dict[str, bool | int | float | str | None]

_ELEMENTS: Final[Mapping[str, Any]] = {
    "b": bool, "i": int, "u": int, "f": float, "V": float, "O": str,
}  # fmt: skip
NOTHING_READ: Final[Mapping[str, "Tensor | Refused"]] = {}
JSON_LENGTH: Final = b"inference-header-content-length"


class InputTensor(Wire, Generic[D], frozen=True, kw_only=True):
    """One input: values in ``data``, or ``binary_data_size`` bytes after the JSON."""

    name: str
    shape: Annotated[tuple[int, ...], Meta(max_length=RANK)]
    datatype: str
    parameters: Parameters | None = None
    data: D = msgspec.field(default_factory=msgspec.Raw)  # type: ignore[assignment] # no data


class WantedOutput(Wire, frozen=True, kw_only=True):
    name: str
    parameters: Parameters | None = None


class InferRequest(Wire, Generic[D], frozen=True, kw_only=True):
    """The JSON of an inference request. Without ``outputs`` all outputs are wanted.

    ``D`` is the type of ``data``: Raw for JSON of any shape, else a list of its elements.
    """

    inputs: Annotated[tuple[InputTensor[D], ...], Meta(min_length=1, max_length=TENSORS)]
    outputs: Annotated[tuple[WantedOutput, ...], Meta(max_length=TENSORS)] | None = None
    id: Annotated[str, Meta(max_length=ID_CHARS)] | None = None
    parameters: Parameters | None = None


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """One output: values in ``data``, or ``binary_data_size`` bytes after the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | None = None
    parameters: Mapping[str, int] | None = None


class InferReply(msgspec.Struct):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


Parsed = InferRequest[Any]
_ANY: Final = InferRequest[msgspec.Raw]
_FLAT: Final[Mapping[str, "msgspec.json.Decoder[Parsed]"]] = {
    kind: msgspec.json.Decoder(InferRequest[list[element]])  # type: ignore[valid-type]
    for kind, element in _ELEMENTS.items()
}
"""For flat data, by the kind of its datatype."""


def json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """The size of the JSON before binary tensors. None without the header, -1 if it is no size."""
    given = headers.get(JSON_LENGTH)
    if given is None:
        return None
    return int(given) if given.isdigit() and len(given) <= 12 else -1


def parse_request(data: bytes | bytearray | memoryview, declared: DeclaredInputs) -> Parsed:
    """The JSON of a request to a release with these inputs.

    Flat lists of the elements that the release declares are decoded with the request. All other
    data stays JSON. Raises OperatorError ``bad_request``.
    """
    decoder = _FLAT.get(declared.kind)
    if decoder is not None and len(data) < LONG_JSON_BYTES:
        try:
            return decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # nested data, or an error, which is found again
    return parse_any(data)


def parse_any(data: bytes | bytearray | memoryview) -> Parsed:
    """The JSON of a request to any release. Raises OperatorError ``bad_request``."""
    return decode(data, _ANY)


def read_inputs(
    request: Parsed,
    binary: memoryview,
    declared: DeclaredInputs,
    read: Mapping[str, Tensor | Refused] = NOTHING_READ,
) -> dict[str, Tensor]:
    """The input arrays by name, all with the same batch size. ``read``: see ``read_long``.

    Raises Refused; its field is the invalid input.
    """
    arrays: dict[str, Tensor] = {}
    used_bytes = 0
    for tensor in request.inputs:
        name = tensor.name
        form = declared.form(name, tensor.datatype, tensor.shape)
        if name in arrays:
            raise bad_tensor(name, "This input is given twice.")
        size_bytes = None
        if tensor.parameters:
            refuse_shared_memory(name, tensor.parameters)
            size_bytes = tensor.parameters.get("binary_data_size")
        if size_bytes is None:
            arrays[name] = _of_json(tensor, form, read)
            continue
        if type(size_bytes) is not int or not 0 <= size_bytes <= len(binary) - used_bytes:
            raise bad_tensor(name, "binary_data_size is larger than the rest of the body.")
        piece = binary[used_bytes : used_bytes + size_bytes]
        arrays[name] = from_binary(name, piece, form.spec.datatype, form.shape)
        used_bytes += size_bytes
    if used_bytes != len(binary):
        raise bad_tensor(
            "inputs", f"{len(binary) - used_bytes} bytes after the JSON belong to no input."
        )
    if len(arrays) != 1 or len(declared.by_name) != 1:
        check_inputs(arrays, declared.by_name)
    return arrays


def refuse_shared_memory(name: str, parameters: Parameters) -> None:
    """Raises OperatorError ``bad_request`` for a tensor in shared memory of the client."""
    if "shared_memory_region" in parameters:
        raise OperatorError(
            "bad_request",
            "Tensors in shared memory are not supported.",
            field=name,
            hint="Send the tensor in the body, as binary: a large body is not copied.",
        )


def read_raw(body: memoryview, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """Read a body that is one raw tensor: batch 1 of a model with one input of fixed size."""
    if len(specs) != 1 or -1 in specs[0].shape[1:] or specs[0].shape[:1] not in ((-1,), (1,)):
        raise Refused(
            Refusal.MISSING_INPUT if len(specs) > 1 else Refusal.SHAPE,
            "A raw body needs a model with one input of fixed size.",
            field="inputs",
            sent="raw bodies",
            wanted=", ".join(f"{shown(spec.name)} {list(spec.shape)}" for spec in specs),
        )
    spec = specs[0]
    shape = (1, *spec.shape[1:])
    size_bytes = math.prod(shape) * NUMPY_TYPES[spec.datatype].itemsize
    if spec.datatype != "BYTES" and len(body) != size_bytes:
        raise Refused(
            Refusal.SHAPE,
            f"{spec.datatype} {list(shape)} has {size_bytes} bytes, not {len(body)}.",
            field=spec.name,
            sent=f"raw bodies of {len(body)} bytes",
            wanted=f"{size_bytes}",
        )
    return {spec.name: from_binary(spec.name, body, spec.datatype, shape)}


def to_json(name: str, array: Tensor) -> list[Any]:
    """The values of ``array``, flat and row-major.

    Raises DeviceError ``inference_failed`` for numbers that are not finite, which the model made.
    """
    if array.dtype.kind != "f":
        return to_json(name, widened(array)) if array.dtype == BF16 else array.ravel().tolist()
    values = array.ravel().tolist()
    # A finite sum has finite terms, and costs less to check for a short answer.
    if not math.isfinite(sum(values)):
        check_finite(name, array)
    return values


def check_finite(name: str, array: Tensor) -> None:
    """Raises DeviceError ``inference_failed`` for numbers that have no JSON."""
    if array.dtype == BF16:
        finite = is_finite(array)
    else:
        finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    if not finite:
        raise not_finite(name)


def not_finite(name: str) -> DeviceError:
    """The error for an output that is no answer."""
    return DeviceError(
        "inference_failed", f"The model failed: output {name} has a number that is not finite."
    )


def read_long(request: Parsed) -> dict[str, Tensor | Refused]:
    """The arrays of inputs with much JSON, or why they are none, as the request describes them.

    For a thread, which does not know the release that will answer. An input that no release can
    have, such as one of an unknown datatype, is left out.
    """
    arrays: dict[str, Tensor | Refused] = {}
    for tensor in request.inputs:
        datatype = _datatype(tensor.datatype)
        if datatype is None or len(memoryview(tensor.data)) < LONG_JSON_BYTES:
            continue
        if tensor.name in arrays or any(size <= 0 for size in tensor.shape):
            continue
        try:
            arrays[tensor.name] = _from_json(tensor, datatype)
        except Refused as error:
            arrays[tensor.name] = error
    return arrays


def _datatype(name: str) -> Datatype | None:
    return next((one for one in NUMPY_TYPES if one == name), None)


def _of_json(
    tensor: InputTensor[Any], form: InputForm, read: Mapping[str, Tensor | Refused]
) -> Tensor:
    """The array of an input whose values are JSON, unless it is among those ``read``."""
    values = tensor.data
    if isinstance(values, list):
        if len(values) != form.count:
            raise bad_tensor(tensor.name, f"data does not have shape {list(form.shape)}.")
        try:
            if form.pack is not None:
                return np.ndarray(form.shape, form.dtype, form.pack(*values))
            return _array(values, form.dtype).reshape(form.shape)
        except (ValueError, OverflowError, FloatingPointError) as error:
            raise _other_elements(tensor.name, form.spec.datatype, error) from error
    found = read.get(tensor.name)
    if isinstance(found, Refused):
        raise found
    return _from_json(tensor, form.spec.datatype) if found is None else found


def _from_json(tensor: InputTensor[Any], datatype: Datatype) -> Tensor:
    data = bytes(tensor.data)
    if not data or data == b"null":
        raise bad_tensor(tensor.name, "The input has neither data nor binary_data_size.")
    nested = not data[1:2].isdigit() and data[1:64].lstrip().startswith(b"[")
    if len(data) >= LONG_JSON_BYTES and datatype not in ("BYTES", "BOOL"):
        array = _long_array(tensor, data, datatype)
        if array is not None:
            return array.reshape(tensor.shape)
    array = array_of(tensor.name, data, datatype, len(tensor.shape) if nested else 1)
    if array.size != math.prod(tensor.shape) or (nested and array.shape != tensor.shape):
        raise bad_tensor(tensor.name, f"data does not have shape {list(tensor.shape)}.")
    return array.reshape(tensor.shape)


def _long_array(tensor: InputTensor[Any], data: bytes, datatype: Datatype) -> Tensor | None:
    """See ``decode_numbers``. Raises Refused for elements that are not of the datatype."""
    dtype = NUMPY_TYPES[datatype]
    try:
        with np.errstate(over="raise"):
            return decode_numbers(data, dtype, _decoder(dtype.kind, 1), tensor.shape)
    except (msgspec.MsgspecError, ValueError, OverflowError, FloatingPointError) as error:
        raise _other_elements(tensor.name, datatype, error) from error


def array_of(name: str, data: bytes | list[Any], datatype: Datatype, depth: int) -> Tensor:
    """An array of JSON, or of decoded JSON, that is a list nested ``depth`` times.

    Raises Refused if the elements are not of the datatype or the rows not of one length.
    """
    dtype = NUMPY_TYPES[datatype]
    try:
        if isinstance(data, bytes):
            values = _decoder(dtype.kind, depth).decode(data)
        else:
            values = msgspec.convert(data, _nested(dtype.kind, depth))
        pack = packer(len(values), dtype) if depth == 1 else None
        array = np.ndarray(len(values), dtype, pack(*values)) if pack else _array(values, dtype)
    except (
        msgspec.MsgspecError,
        ValueError,
        OverflowError,
        FloatingPointError,
        RecursionError,
    ) as error:
        raise _other_elements(name, datatype, error) from error
    if array.ndim != depth:  # texts of rows of different lengths
        raise bad_tensor(name, f"data is not a {datatype} tensor: its rows differ in length.")
    return array


def _array(values: list[Any], dtype: "np.dtype[Any]") -> Tensor:
    """The array of a list. Raises FloatingPointError and what NumPy raises."""
    with np.errstate(over="raise"):
        return from_numbers(values) if dtype == BF16 else np.array(values, dtype)


def _other_elements(name: str, datatype: Datatype, error: Exception) -> Refused:
    return bad_tensor(name, f"data is not a {datatype} tensor: {error}.")


@lru_cache(maxsize=128)
def _decoder(kind: str, depth: int) -> "msgspec.json.Decoder[list[Any]]":
    return msgspec.json.Decoder(_nested(kind, depth))


@lru_cache(maxsize=128)
def _nested(kind: str, depth: int) -> Any:
    nested: Any = _ELEMENTS[kind]
    for _ in range(depth):
        nested = list[nested]
    return nested
