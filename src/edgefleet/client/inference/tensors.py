"""Tensors of Open Inference Protocol v2: as JSON, and as binary tensors behind the JSON.

Binary tensors are little-endian, row-major and without padding; an element of type BYTES is a
32-bit length and its bytes. Source: the protocol's ``inference_rest.md``, and Triton's
``extension_binary_data.md``.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.client.inference.limits import JSON_ELEMENTS
from edgefleet.client.inference.model_info import ModelInfo, TensorInfo
from edgefleet.protocol.release import LAYOUTS
from edgefleet.protocol.wire import Wire, encode

Tensor = NDArray[Any]

NUMPY_TYPES: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        **{datatype: np.dtype(layout) for datatype, layout in LAYOUTS.items()},
        "BF16": np.dtype("<f4"),  # here as FP32, in the body as its upper half
    }
)
_BINARY_ONLY: Final = ("FP16", "BF16")
_LENGTH: Final = struct.Struct("<I")
_JSON_LENGTH: Final = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """The headers and the body of an inference request."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """An answer. ``tensors`` are the outputs by name; ``datatypes`` are theirs."""

    model: str
    release: str
    id: str
    tensors: Mapping[str, Tensor]
    datatypes: Mapping[str, str]


class _Output(Wire, frozen=True, kw_only=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class _Answer(Wire, frozen=True, kw_only=True):
    model_name: str = ""
    model_version: str | None = None
    id: str | None = None
    outputs: tuple[_Output, ...] = ()


def fit(array: Tensor, info: TensorInfo) -> Tensor:
    """``array`` with the datatype and shape of the input ``info``.

    A missing batch dimension is added, and a flat array is folded if at most one size is open.
    Raises OperatorError ``bad_request``, whose field is the input, if the array does not fit.
    """
    dtype = NUMPY_TYPES.get(info.datatype)
    if dtype is None:
        raise OperatorError(
            "bad_request", f"The datatype {info.datatype} is unknown.", field=info.name
        )
    return _shaped(_cast(array, dtype, info), info)


def encode_request(
    tensors: Mapping[str, Tensor],
    infos: Sequence[TensorInfo],
    *,
    outputs: Sequence[str] = (),
    binary: bool | None = None,
    request_id: str | None = None,
) -> EncodedRequest:
    """The request for ``tensors``, each of which fits its info.

    ``binary`` chooses binary tensors or JSON. None: binary for tensors that are large or have no
    JSON form. Without ``outputs`` all outputs are asked for.
    """
    inputs: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    large = any(tensor.size > JSON_ELEMENTS for tensor in tensors.values())
    for info in infos:
        if info.name not in tensors:
            continue
        tensor = tensors[info.name]
        one: dict[str, Any] = {
            "name": info.name,
            "shape": tensor.shape,
            "datatype": info.datatype,
        }
        if binary or (binary is None and large) or info.datatype in _BINARY_ONLY:
            pieces.append(_to_binary(tensor, info.datatype))
            one["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            one["data"] = _to_json(tensor, info.name)
        inputs.append(one)
    request: dict[str, Any] = {"inputs": inputs}
    if request_id is not None:
        request["id"] = request_id
    if outputs:
        request["outputs"] = [{"name": name} for name in outputs]
    if binary or (binary is None and pieces):
        request["parameters"] = {"binary_data_output": True}
    head = encode(request)
    if not pieces:
        return EncodedRequest({"Content-Type": "application/json"}, head)
    headers = {"Content-Type": "application/octet-stream", _JSON_LENGTH: str(len(head))}
    return EncodedRequest(headers, b"".join((head, *pieces)))


def decode_answer(headers: Mapping[str, str], body: bytes) -> InferAnswer:
    """The answer in ``body``. Names of ``headers`` are lower case.

    Raises NetworkError ``answer_malformed``.
    """
    length = headers.get(_JSON_LENGTH.lower(), "")
    json_bytes = int(length) if length.isdecimal() else len(body)
    try:
        answer = msgspec.json.decode(body[:json_bytes], type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(f"The answer is no inference answer: {error}.") from error
    tensors: dict[str, Tensor] = {}
    at = json_bytes
    for output in answer.outputs:
        size_bytes = (output.parameters or {}).get("binary_data_size")
        if isinstance(size_bytes, int) and size_bytes >= 0:
            tensors[output.name] = _from_binary(output, body[at : at + size_bytes])
            at += size_bytes
        else:
            tensors[output.name] = _from_json(output)
    return InferAnswer(
        answer.model_name,
        answer.model_version or "",
        answer.id or "",
        tensors,
        {output.name: output.datatype for output in answer.outputs},
    )


def sample_tensors(info: ModelInfo, batch: int, seed: int) -> dict[str, Tensor]:
    """Random inputs for a benchmark. Open sizes other than the batch are 1.

    Raises OperatorError ``bad_request`` for an unknown datatype.
    """
    random = np.random.default_rng(seed)
    made: dict[str, Tensor] = {}
    for one in info.inputs:
        shape = tuple(
            size if size > 0 else batch if place == 0 else 1 for place, size in enumerate(one.shape)
        )
        if one.datatype == "BYTES":
            made[one.name] = np.full(shape, "edgefleet", dtype=object)
        else:
            made[one.name] = fit(random.random(shape, np.float32).round(4), one)
    return made


def _cast(array: Tensor, dtype: np.dtype[Any], info: TensorInfo) -> Tensor:
    if dtype.kind == "O":
        return array.astype(object)
    is_text = array.dtype.kind in "OUS"
    if is_text or (array.dtype.kind == "f" and not np.isfinite(array).all() and dtype.kind != "f"):
        raise _unfit(info, f"{'texts' if is_text else array.dtype} are not {info.datatype}")
    if array.dtype.kind in "fiu" and dtype.kind in "iu" and array.size:
        bounds = np.iinfo(dtype)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise _unfit(info, f"values from {array.min()} to {array.max()} exceed {info.datatype}")
    return np.ascontiguousarray(array, dtype)


def _shaped(array: Tensor, info: TensorInfo) -> Tensor:
    wanted = info.shape
    if _has_shape(array.shape, wanted):
        return array
    if _has_shape((1, *array.shape), wanted):
        return array.reshape(1, *array.shape)
    rest = math.prod(wanted[1:])
    if array.ndim <= 1 and rest > 0 and array.size and array.size % rest == 0:
        batch = array.size // rest
        if wanted[:1] in ((-1,), (batch,)):
            return array.reshape(batch, *wanted[1:])
    raise _unfit(info, f"the values have shape {list(array.shape)}")


def _has_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (-1, size) and size > 0 for size, want in zip(shape, wanted, strict=True)
    )


def _to_json(tensor: Tensor, name: str) -> list[Any]:
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise OperatorError(
            "bad_request",
            "JSON has no form for numbers that are not finite.",
            field=name,
            hint="Send the tensor with --binary.",
        )
    values = tensor.ravel().tolist()
    return [_text(value) for value in values] if tensor.dtype == object else values


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _to_binary(tensor: Tensor, datatype: str) -> bytes:
    if datatype == "BYTES":
        pieces: list[bytes] = []
        for item in tensor.ravel().tolist():
            text = item if isinstance(item, bytes) else str(item).encode()
            pieces += (_LENGTH.pack(len(text)), text)
        return b"".join(pieces)
    if datatype == "BF16":
        bits = np.ascontiguousarray(tensor, np.float32).view(np.uint32)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)  # to the nearest, ties to even
        return np.where(np.isfinite(tensor), rounded >> 16, bits >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(tensor, NUMPY_TYPES[datatype]).tobytes()


def _from_json(output: _Output) -> Tensor:
    dtype = NUMPY_TYPES.get(output.datatype)
    if dtype is None or output.data is None:
        raise _malformed(f"Output {output.name} has no data of a known datatype.")
    try:
        return np.array(output.data, dtype).reshape(output.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise _malformed(f"Output {output.name} does not fit its shape: {error}.") from error


def _from_binary(output: _Output, data: bytes) -> Tensor:
    dtype = NUMPY_TYPES.get(output.datatype)
    try:
        if dtype is None:
            raise ValueError("its datatype is unknown")  # noqa: TRY301 - one message for all
        if output.datatype == "BYTES":
            return np.array(_texts(data), dtype=object).reshape(output.shape)
        if output.datatype == "BF16":
            wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
            return wide.view(np.float32).reshape(output.shape)
        return np.frombuffer(data, dtype).reshape(output.shape)
    except (ValueError, struct.error) as error:
        raise _malformed(f"Output {output.name} is not as announced: {error}.") from error


def _texts(data: bytes) -> list[str | bytes]:
    texts: list[str | bytes] = []
    at = 0
    while at < len(data):
        (size_bytes,) = _LENGTH.unpack_from(data, at)
        piece = data[at + 4 : at + 4 + size_bytes]
        if len(piece) != size_bytes:
            raise ValueError("an element is cut")
        try:
            texts.append(piece.decode())
        except UnicodeDecodeError:
            texts.append(piece)
        at += 4 + size_bytes
    return texts


def _unfit(info: TensorInfo, what: str) -> OperatorError:
    return OperatorError(
        "bad_request",
        f"The model needs {info.datatype} {list(info.shape)}; {what}.",
        field=info.name,
        hint=f"Give values of shape {list(info.shape)}; -1 is any size.",
    )


def _malformed(message: str) -> NetworkError:
    return NetworkError(
        "answer_malformed",
        message,
        hint="Check --address: its server does not speak Open Inference Protocol v2.",
    )
