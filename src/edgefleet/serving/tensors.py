"""Tensors in Open Inference Protocol v2 JSON and in its binary tensor extension.

Source: github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md) and
the extension as Triton documents it (protocol/extension_binary_data.md). Binary tensors are
little-endian, row-major, without padding; BYTES are a 32-bit length before each element.
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from edgefleet.base.errors import DeviceError
from edgefleet.protocol.device import Refusal
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.protocol.wire import Wire
from edgefleet.serving.limits import ID_CHARS, RANK, TENSORS
from edgefleet.serving.refused import Refused, shown
from edgefleet.serving.runtime import NUMPY_TYPES, Tensor

Parameters = dict[str, bool | int | float | str | None]

_ELEMENTS: Final[Mapping[str, Any]] = {"b": bool, "i": int, "u": int, "f": float, "O": str}
_JSON_LENGTH: Final = b"inference-header-content-length"
_LENGTH: Final = struct.Struct("<I")
_NAMES: Final = 3  # of tensors in the text of a refusal


class InputTensor(Wire, frozen=True, kw_only=True):
    """One input: values in ``data``, or ``binary_data_size`` bytes after the JSON."""

    name: str
    shape: Annotated[tuple[int, ...], Meta(max_length=RANK)]
    datatype: str
    parameters: Parameters = msgspec.field(default_factory=dict)
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class WantedOutput(Wire, frozen=True, kw_only=True):
    name: str
    parameters: Parameters = msgspec.field(default_factory=dict)


class InferRequest(Wire, frozen=True, kw_only=True):
    """The JSON of an inference request. Empty ``outputs`` selects all outputs."""

    inputs: Annotated[tuple[InputTensor, ...], Meta(min_length=1, max_length=TENSORS)]
    outputs: Annotated[tuple[WantedOutput, ...], Meta(max_length=TENSORS)] = ()
    id: Annotated[str, Meta(max_length=ID_CHARS)] | None = None
    parameters: Parameters = msgspec.field(default_factory=dict)


def json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """The size of the JSON before binary tensors. None without the header, -1 if it is no size."""
    given = headers.get(_JSON_LENGTH)
    if given is None:
        return None
    return int(given) if given.isdigit() and len(given) <= 12 else -1


class DeclaredInput(Protocol):
    """What each protocol says of an input."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


D = TypeVar("D", bound=DeclaredInput)


def read_inputs(
    request: InferRequest, binary: memoryview, specs: Sequence[TensorSpec], max_batch: int
) -> dict[str, Tensor]:
    """The input arrays by name, all with the same batch size.

    Raises Refused; its field is the invalid input.
    """
    used_bytes = 0

    def read(tensor: InputTensor, spec: TensorSpec) -> Tensor:
        nonlocal used_bytes
        size_bytes = tensor.parameters.get("binary_data_size")
        if size_bytes is None:
            return _from_json(tensor, spec)
        if type(size_bytes) is not int or not 0 <= size_bytes <= len(binary) - used_bytes:
            raise _bad(tensor.name, "binary_data_size is larger than the rest of the body.")
        piece = binary[used_bytes : used_bytes + size_bytes]
        used_bytes += size_bytes
        return from_binary(tensor.name, piece, spec.datatype, tensor.shape)

    arrays = gather_inputs(request.inputs, specs, max_batch, read)
    if used_bytes != len(binary):
        raise _bad("inputs", f"{len(binary) - used_bytes} bytes after the JSON belong to no input.")
    return arrays


def gather_inputs(
    inputs: Iterable[D],
    specs: Sequence[TensorSpec],
    max_batch: int,
    read: Callable[[D, TensorSpec], Tensor],
) -> dict[str, Tensor]:
    """The arrays of ``inputs`` by name, each read by ``read``, all with the same batch size.

    Raises Refused; its field is the invalid input.
    """
    known = {spec.name: spec for spec in specs}
    arrays: dict[str, Tensor] = {}
    for tensor in inputs:
        spec = known.get(tensor.name)
        if spec is None:
            raise Refused(
                Refusal.UNKNOWN_INPUT,
                f"This input is unknown; the model has inputs {sorted(known)}.",
                field=tensor.name,
                sent=shown(tensor.name),
                wanted=_names(known),
            )
        if tensor.name in arrays:
            raise _bad(tensor.name, "This input is given twice.")
        _check_shape(tensor, spec, max_batch)
        arrays[tensor.name] = read(tensor, spec)
    if missing := sorted(known.keys() - arrays.keys()):
        raise Refused(
            Refusal.MISSING_INPUT,
            "This input is missing.",
            field=missing[0],
            sent=_names(arrays),
            wanted=f"{_names(missing)}, too",
        )
    if len({array.shape[0] for array in arrays.values() if array.ndim}) > 1:
        raise _bad("inputs", "All inputs must have the same first size, the batch.")
    return arrays


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


def from_binary(name: str, data: memoryview, datatype: Datatype, shape: tuple[int, ...]) -> Tensor:
    """An array of ``data``. It is copied only if it is not aligned."""
    count = math.prod(shape)
    if datatype == "BYTES":
        return np.array(_texts(name, data, count), dtype=object).reshape(shape)
    dtype = NUMPY_TYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise _bad(
            name, f"{datatype} {list(shape)} has {count * dtype.itemsize} bytes, not {len(data)}."
        )
    array = np.frombuffer(data, dtype)
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(shape)


def to_binary(array: Tensor) -> bytes | memoryview:
    """``array`` in the format of the binary tensor extension: a view of it, if it can be."""
    if array.dtype == object:
        pieces: list[bytes] = []
        for item in array.ravel():
            text = item.encode() if isinstance(item, str) else bytes(item)
            pieces += (_LENGTH.pack(len(text)), text)
        return b"".join(pieces)
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return flat.view(np.uint8).data


def to_json(name: str, array: Tensor) -> list[Any]:
    """The values of ``array``, flat and row-major.

    Raises DeviceError ``inference_failed`` for numbers that are not finite, which the model made,
    and Refused for half floats: the client can ask for these in binary.
    """
    if array.dtype == np.float16:
        raise _not_json(name, "FP16 has no JSON form.")
    values = array.ravel().tolist()
    # A finite sum has finite terms, and costs less to check for a short answer.
    if array.dtype.kind == "f" and not math.isfinite(sum(values)) and not np.isfinite(array).all():
        raise not_finite(name)
    return values


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
    if tensor.dtype != NUMPY_TYPES[spec.datatype] or tensor.ndim != len(spec.shape):
        return False
    for size, declared in zip(tensor.shape, spec.shape, strict=True):
        if declared not in (size, -1):
            return False
    return True


def not_finite(name: str) -> DeviceError:
    """The error for an output that is no answer."""
    return DeviceError(
        "inference_failed", f"The model failed: output {name} has a number that is not finite."
    )


def _from_json(tensor: InputTensor, spec: TensorSpec) -> Tensor:
    data = bytes(tensor.data)
    if not data:
        raise _bad(tensor.name, "The input has neither data nor binary_data_size.")
    if spec.datatype == "FP16":
        raise _not_json(tensor.name, "FP16 has no JSON form.")
    nested = data[1:64].lstrip().startswith(b"[")
    dtype = NUMPY_TYPES[spec.datatype]
    try:
        values = _decoder(dtype.kind, len(tensor.shape) if nested else 1).decode(data)
        with np.errstate(over="raise"):
            array = np.array(values, dtype)
    except (msgspec.MsgspecError, ValueError, OverflowError, FloatingPointError) as error:
        raise _bad(tensor.name, f"data is not a {spec.datatype} tensor: {error}.") from error
    if array.size != math.prod(tensor.shape) or (nested and array.shape != tensor.shape):
        raise _bad(tensor.name, f"data does not have shape {list(tensor.shape)}.")
    return array.reshape(tensor.shape)


@lru_cache(maxsize=128)
def _decoder(kind: str, depth: int) -> "msgspec.json.Decoder[list[Any]]":
    nested: Any = _ELEMENTS[kind]
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)


def _check_shape(tensor: DeclaredInput, spec: TensorSpec, max_batch: int) -> None:
    if tensor.datatype != spec.datatype:
        raise Refused(
            Refusal.DATATYPE,
            f"The model needs {spec.datatype}, not {tensor.datatype}.",
            field=tensor.name,
            sent=f"{shown(tensor.name)} as {shown(tensor.datatype)}",
            wanted=spec.datatype,
        )
    fits = len(tensor.shape) == len(spec.shape) and all(
        size > 0 and want in (-1, size) for size, want in zip(tensor.shape, spec.shape, strict=True)
    )
    if not fits:
        raise Refused(
            Refusal.SHAPE,
            f"The model needs shape {list(spec.shape)}, not {list(tensor.shape)}.",
            field=tensor.name,
            sent=f"{shown(tensor.name)} of shape {list(tensor.shape)}",
            wanted=f"{list(spec.shape)}",
        )
    if spec.shape[:1] == (-1,) and tensor.shape[0] > max_batch:
        raise Refused(
            Refusal.SHAPE,
            f"The batch has {tensor.shape[0]} items; {max_batch} are allowed.",
            field=tensor.name,
            sent=f"batches of {tensor.shape[0]}",
            wanted=f"{max_batch} or fewer",
        )


def _texts(name: str, data: memoryview, count: int) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(data) and len(texts) < count:
        if at + 4 > len(data):
            break
        (size_bytes,) = _LENGTH.unpack_from(data, at)
        piece = data[at + 4 : at + 4 + size_bytes]
        if len(piece) != size_bytes:
            break
        try:
            texts.append(str(piece, "utf-8"))
        except UnicodeDecodeError as error:
            raise _bad(name, "The runtime accepts text in UTF-8 only.") from error
        at += 4 + size_bytes
    if len(texts) != count or at != len(data):
        raise _bad(name, f"The bytes do not have exactly {count} elements.")
    return texts


def _names(names: Iterable[str]) -> str:
    return ", ".join(shown(name) for name in sorted(names)[:_NAMES])


def _bad(name: str, message: str) -> Refused:
    return Refused(Refusal.MALFORMED, message, field=name)


def _not_json(name: str, message: str) -> Refused:
    return Refused(
        Refusal.DATATYPE,
        message,
        field=name,
        hint="Use the binary tensor extension for it.",
        sent=f"{shown(name)} as JSON",
        wanted="binary tensors of FP16",
    )
