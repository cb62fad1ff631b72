"""Values in the JSON of TensorFlow Serving, to arrays and back.

Numbers that are not finite are the literals NaN, Infinity and -Infinity, in requests and replies:
no JSON, but what its clients send and read. A body with one is read by a slower parser.
"""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.release import TensorSpec
from edgefleet.protocol.wire import decode, encode
from edgefleet.serving.declared import bad_tensor
from edgefleet.serving.runtime import Tensor
from edgefleet.serving.tensors import array_of

SIGNATURE: Final = "serving_default"
Value = Any
"""JSON that is not decoded yet, as bytes, or decoded JSON."""

_NO_JSON: Final = (b"NaN", b"Infinity")
_NOTHING: Final = (b"", b"null", None)


class _Body(msgspec.Struct, frozen=True):
    """All fields of the three requests; each request has some of them."""

    signature_name: str | None = None
    instances: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    inputs: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    examples: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    context: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


_FIELDS: Final = ("instances", "inputs", "examples", "context")


def read_body(body: bytes | bytearray | memoryview) -> dict[str, Value]:
    """The fields of a request that are there and not null.

    Raises OperatorError ``bad_request`` for no JSON, and for another signature than the one that
    each model has.
    """
    data = bytes(body)
    values: dict[str, Value]
    if any(literal in data for literal in _NO_JSON):
        values = _loaded(data)
        signature = values.get("signature_name")
    else:
        read = decode(data, _Body)
        signature = read.signature_name
        values = {name: bytes(getattr(read, name)) for name in _FIELDS}
    if signature not in (None, "", SIGNATURE):
        raise OperatorError(
            "bad_request",
            f"The model has the signature {SIGNATURE} alone.",
            field="signature_name",
        )
    return {name: values[name] for name in _FIELDS if values.get(name) not in _NOTHING}


def _loaded(data: bytes) -> dict[str, Value]:
    try:
        loaded = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise OperatorError("bad_request", f"Invalid JSON: {error}.") from error
    if not isinstance(loaded, dict):
        raise OperatorError("bad_request", "The body must be a JSON object.")
    return loaded


def decoded(value: Value) -> Any:
    """The decoded JSON of ``value``."""
    return decode(value, object) if isinstance(value, bytes) else value


def is_bare(value: Value) -> bool:
    """Whether ``value`` is a list that begins with no object: its JSON is read as it is."""
    if not isinstance(value, bytes) or value[:1] != b"[":
        return False
    return value[:64].lstrip(b" \t\r\n[")[:1] not in (b"{", b'"', b"")


def is_binary(value: object) -> bool:
    """Whether ``value`` is the object for one binary element."""
    return isinstance(value, dict) and value.keys() == {"b64"}


def tensor_of(value: Value, spec: TensorSpec) -> Tensor:
    """The array of a nested list with as many levels as ``spec`` has sizes. Raises Refused."""
    depth = len(spec.shape)
    if spec.datatype == "BYTES":
        value = _texts(spec.name, decoded(value), depth)
    elif isinstance(value, list | bytes) or depth == 0:
        pass
    else:
        raise bad_tensor(spec.name, f"data is not a {spec.datatype} tensor.")
    return array_of(spec.name, value, spec.datatype, depth)


def _texts(name: str, value: Any, depth: int) -> Any:
    """``value`` with its binary elements as texts."""
    if depth and isinstance(value, list):
        return [_texts(name, one, depth - 1) for one in value]
    if not is_binary(value):
        return value
    try:
        return base64.b64decode(value["b64"], validate=True).decode()
    except UnicodeDecodeError as error:
        raise bad_tensor(name, "The runtime accepts text in UTF-8 only.") from error
    except (binascii.Error, TypeError, ValueError) as error:
        raise bad_tensor(name, f"b64 is not base64: {error}.") from error


def listed(name: str, tensor: Tensor) -> Any:
    """The values of an output as nested lists. Texts of an output ``..._bytes`` are base64."""
    values = tensor.tolist()
    if tensor.dtype == object and name.endswith("_bytes"):
        return _encoded(values)
    return values


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(one) for one in value]
    data = value.encode() if isinstance(value, str) else bytes(value)
    return {"b64": base64.b64encode(data).decode()}


def written(answer: Mapping[str, object], tensors: Iterable[Tensor]) -> bytes:
    """The answer as JSON, with literals for the numbers of ``tensors`` that are not finite."""
    for tensor in tensors:
        if tensor.dtype.kind == "f" and not math.isfinite(np.add.reduce(tensor, axis=None)):
            return json.dumps(answer, separators=(",", ":")).encode()
    return encode(answer)
