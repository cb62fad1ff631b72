"""ModelInferRequest read without a copy of its tensors, and ModelInferResponse written.

Clients repeat the same small submessages, so these are remembered. Source:
github.com/kserve/open-inference-protocol (specification/protocol/open_inference_grpc.proto).
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from edgefleet.base.errors import OperatorError
from edgefleet.serving.grpc.protobuf import (
    BYTES,
    FIXED64,
    VARINT,
    Value,
    fields,
    key,
    malformed,
    read_varint,
    signed,
    sized,
    text,
    varint,
)
from edgefleet.serving.limits import ID_CHARS, RANK, TENSORS

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]

_DOUBLE: Final = struct.Struct("<d")
_NONE: Final[Parameters] = MappingProxyType({})
_REMEMBERED_BYTES: Final = 256  # submessages of this size or less are remembered
_LAYOUTS: Final = 64
_LAYOUT_BYTES: Final = 4096
_RAW_IN: Final = 7
_RAW_OUT: Final = key(6, BYTES)


class InputHead:
    """One input without its raw contents. ``contents`` is an InferTensorContents, or None."""

    __slots__ = ("contents", "datatype", "name", "parameters", "shape")

    def __init__(self) -> None:
        self.name = ""
        self.datatype = ""
        self.shape: tuple[int, ...] = ()
        self.parameters: Parameters = _NONE
        self.contents: memoryview | None = None


class RequestHead:
    """All of a ModelInferRequest but its raw contents. ``plan`` is the codec's note on it."""

    __slots__ = ("id", "inputs", "model", "outputs", "parameters", "plan", "version")

    def __init__(self) -> None:
        self.model = ""
        self.version = ""
        self.id = ""
        self.parameters: dict[str, Parameter] = {}
        self.inputs: list[InputHead] = []
        self.outputs: list[tuple[str, Parameters]] = []
        self.plan: object = None


class InferMessage(NamedTuple):
    """A ModelInferRequest. ``raw`` are views of the message; the head may be a remembered one."""

    head: RequestHead
    raw: list[memoryview]


_layouts: dict[int, tuple[bytes, RequestHead]] = {}
"""The last message of each size that ended with its only raw tensor: the bytes before the tensor.

A client repeats these bytes, so they are compared instead of read.
"""


def read_infer(data: memoryview) -> InferMessage:
    """Raises OperatorError ``bad_request``."""
    known = _layouts.get(len(data))
    if known is not None:
        before, head = known
        if bytes(data[: len(before)]) == before:
            return InferMessage(head, [data[len(before) :]])
    head = RequestHead()
    raw = _read_head(head, data)
    if len(raw) == 1 and not head.id and all(one.contents is None for one in head.inputs):
        before_bytes = len(data) - len(raw[0])
        # The tensor is the end of the message: no field comes after it.
        if before_bytes <= _LAYOUT_BYTES and raw_offset(data[:before_bytes]) == before_bytes:
            if len(_layouts) >= _LAYOUTS:
                _layouts.clear()
            _layouts[len(data)] = (bytes(data[:before_bytes]), head)
    return InferMessage(head, raw)


def _read_head(message: RequestHead, data: memoryview) -> list[memoryview]:
    """Read all fields. Returns the raw contents. Raises OperatorError ``bad_request``."""
    raw: list[memoryview] = []
    for number, _, value in fields(data):
        if isinstance(value, int):
            continue  # a field of a newer version
        if number == _RAW_IN:
            raw.append(value)
        elif number == 5:
            message.inputs.append(
                _known_input(bytes(value)) if len(value) <= _REMEMBERED_BYTES else _input(value)
            )
        elif number == 1:
            message.model = text(value)
        elif number == 2:
            message.version = text(value)
        elif number == 3:
            message.id = text(value)
        elif number == 4:
            name, parameter = _parameter(value)
            message.parameters[name] = parameter
        elif number == 6:
            message.outputs.append(
                _known_output(bytes(value)) if len(value) <= _REMEMBERED_BYTES else _output(value)
            )
    if max(len(message.inputs), len(message.outputs), len(raw)) > TENSORS:
        raise malformed(f"The request has more than {TENSORS} tensors.")
    if len(message.id) > ID_CHARS:
        raise malformed(f"The id has more than {ID_CHARS} characters.")
    return raw


def raw_offset(data: memoryview) -> int:
    """The place of the first raw tensor in a message of which ``data`` are the first bytes.

    0 if it is not in ``data``.
    """
    at = 0
    try:
        while at < len(data):
            tag, at = read_varint(data, at)
            if tag & 7 != BYTES:
                return 0
            size, at = read_varint(data, at)
            if tag >> 3 == _RAW_IN:
                return at
            at += size
    except OperatorError:
        return 0
    return 0


@lru_cache(maxsize=256)
def _known_input(data: bytes) -> InputHead:
    return _input(memoryview(data))


@lru_cache(maxsize=256)
def _known_output(data: bytes) -> tuple[str, Parameters]:
    return _output(memoryview(data))


def _input(data: memoryview) -> InputHead:
    head = InputHead()
    shape: list[int] = []
    parameters: dict[str, Parameter] = {}
    for number, wire, value in fields(data):
        if number == 3:
            shape += _numbers(wire, value)
        elif isinstance(value, int):
            continue
        elif number == 1:
            head.name = text(value)
        elif number == 2:
            head.datatype = text(value)
        elif number == 4:
            name, parameter = _parameter(value)
            parameters[name] = parameter
        elif number == 5:
            head.contents = value
    if len(shape) > RANK:
        raise malformed(f"The shape of an input has more than {RANK} sizes.")
    head.shape = tuple(shape)
    if parameters:
        head.parameters = parameters
    return head


def _output(data: memoryview) -> tuple[str, Parameters]:
    name = ""
    parameters: dict[str, Parameter] = {}
    for number, _, value in fields(data):
        if number == 1:
            name = text(value)
        elif number == 2:
            parameter_name, parameter = _parameter(value)
            parameters[parameter_name] = parameter
    return name, parameters or _NONE


def _numbers(wire: int, value: Value) -> list[int]:
    """The numbers of a repeated int64, packed or one alone."""
    if isinstance(value, int):
        return [signed(value)]
    if wire != BYTES:
        raise malformed()
    numbers: list[int] = []
    at = 0
    while at < len(value):
        number, at = read_varint(value, at)
        numbers.append(signed(number))
    return numbers


def _parameter(entry: Value) -> tuple[str, Parameter]:
    """An entry of a map from strings to InferParameter."""
    name = ""
    parameter: Parameter = ""
    if isinstance(entry, int):
        raise malformed()
    for number, _, value in fields(entry):
        if number == 1:
            name = text(value)
        elif number == 2 and not isinstance(value, int):
            for kind, wire, one in fields(value):
                parameter = _parameter_value(kind, wire, one)
    return name, parameter


def _parameter_value(kind: int, wire: int, value: Value) -> Parameter:
    if kind == 3:
        return text(value)
    if kind == 4 and wire == FIXED64 and not isinstance(value, int):
        number: float = _DOUBLE.unpack(value)[0]
        return number
    if not isinstance(value, int):
        raise malformed()
    if kind == 1:
        return bool(value)
    return signed(value) if kind == 2 else value


def encode_parameter(name: str, value: Parameter) -> bytes:
    """An entry of a map from strings to InferParameter."""
    match value:
        case bool():
            encoded = key(1, VARINT) + varint(value)
        case int():
            encoded = key(2, VARINT) + varint(value)
        case float():
            encoded = key(4, FIXED64) + _DOUBLE.pack(value)
        case str():
            encoded = sized(3, value.encode())
    return sized(1, name.encode()) + sized(2, encoded)


@lru_cache(maxsize=256)
def reply_head(model: str, version: str) -> bytes:
    """The first fields of a ModelInferResponse."""
    return sized(1, model.encode()) + sized(2, version.encode())


@lru_cache(maxsize=1024)
def output_head(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """An InferOutputTensor without contents, without the key and size before it."""
    sizes = b"".join(map(varint, shape))
    return (
        sized(1, name.encode()) + sized(2, datatype.encode()) + (sized(3, sizes) if sizes else b"")
    )


@lru_cache(maxsize=1024)
def raw_output_head(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """The field of an InferOutputTensor whose contents are raw."""
    return sized(5, output_head(name, datatype, shape))


def typed_output(head: bytes, contents: bytes) -> bytes:
    """The field of an InferOutputTensor with its contents."""
    return sized(5, head + sized(5, contents))


def encode_reply(
    head: bytes, request_id: str, outputs: Sequence[bytes], raw: Sequence[bytes | memoryview]
) -> bytes:
    """A ModelInferResponse."""
    pieces: list[bytes | memoryview] = [head, sized(3, request_id.encode()), *outputs]
    for data in raw:
        pieces += (_RAW_OUT, varint(len(data)), data)
    return b"".join(pieces)
