"""The wire format of protocol buffers, for messages that a table describes.

Requests and replies of the small methods are dictionaries here. ``infer_message`` reads the one
message whose cost matters, without a copy of its tensors.

Source: protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from edgefleet.base.errors import OperatorError

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

_VARINT_BYTES: Final = 10
_SIGN: Final = 1 << 63
_RING: Final = 1 << 64
_DOUBLE: Final = struct.Struct("<d")
_FLOAT: Final = struct.Struct("<f")

Schema = Mapping[int, "Field"]
Value = int | memoryview


class Field(NamedTuple):
    """A field of a message. ``kind`` is a scalar type of protobuf, or the schema of a message.

    ``map`` is a map with strings as keys and ``kind`` as values. A field of a ``oneof`` is
    ``explicit``: it is encoded even if it is zero.
    """

    name: str
    kind: "str | Schema"
    repeated: bool = False
    map: bool = False
    explicit: bool = False


def malformed(text: str = "The message is not a protocol buffer of this type.") -> OperatorError:
    """The error for bytes that are not the message that the method takes."""
    return OperatorError("bad_request", text, field="message", hint="Use the client's stubs.")


def varint(number: int) -> bytes:
    """``number`` in the encoding of variable size; a negative one as 64 bits."""
    if number < 0:
        number += _RING
    if number < 0x80:
        return bytes((number,))
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at ``at``, and the place after it. Raises OperatorError ``bad_request``."""
    number = shift = 0
    for place in range(at, min(len(data), at + _VARINT_BYTES)):
        byte = data[place]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (_RING - 1), place + 1
        shift += 7
    raise malformed()


def signed(number: int) -> int:
    """A 64-bit number with its sign."""
    return number - _RING if number & _SIGN else number


def fields(data: memoryview) -> Iterator[tuple[int, int, Value]]:
    """The fields of a message: number, wire type, value. Raises OperatorError ``bad_request``."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        wire = tag & 7
        if wire == VARINT:
            number, at = read_varint(data, at)
            yield tag >> 3, wire, number
            continue
        if wire == BYTES:
            size, at = read_varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise malformed()
        if size > len(data) - at:
            raise malformed()
        yield tag >> 3, wire, data[at : at + size]
        at += size


def text(value: Value) -> str:
    """A string field. Raises OperatorError ``bad_request``."""
    if isinstance(value, int):
        raise malformed()
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise malformed("A string of the message is not UTF-8.") from error


def decode(data: memoryview, schema: Schema) -> dict[str, Any]:
    """The message as a dictionary; a field that is absent is not in it.

    Raises OperatorError ``bad_request``.
    """
    message: dict[str, Any] = {}
    for number, wire, value in fields(data):
        field = schema.get(number)
        if field is None:
            continue
        if field.map:
            entry = decode(
                _bytes(value), {1: Field("key", "string"), 2: Field("value", field.kind)}
            )
            default: Any = {} if isinstance(field.kind, Mapping) else None
            message.setdefault(field.name, {})[entry.get("key", "")] = entry.get("value", default)
        elif field.repeated:
            message.setdefault(field.name, []).extend(_items(field.kind, wire, value))
        else:
            message[field.name] = _item(field.kind, wire, value)
    return message


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise malformed()
    return value


def _items(kind: "str | Schema", wire: int, value: Value) -> Iterator[Any]:
    packed = wire == BYTES and isinstance(kind, str) and kind not in ("string", "bytes")
    if not packed:
        yield _item(kind, wire, value)
        return
    data, at = _bytes(value), 0
    while at < len(data):
        number, at = read_varint(data, at)
        yield _item(kind, VARINT, number)


def _item(kind: "str | Schema", wire: int, value: Value) -> Any:
    if isinstance(kind, Mapping):
        return decode(_bytes(value), kind)
    if kind == "string":
        return text(value)
    if kind == "bytes":
        return bytes(_bytes(value))
    if kind == "double":
        if wire != FIXED64:
            raise malformed()
        return _DOUBLE.unpack(_bytes(value))[0]
    if not isinstance(value, int):
        raise malformed()
    if kind == "bool":
        return bool(value)
    return signed(value) if kind.startswith("int") else value


def key(number: int, wire: int) -> bytes:
    """The bytes before the value of a field."""
    return varint(number << 3 | wire)


def sized(number: int, data: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return b"%s%s%s" % (key(number, BYTES), varint(len(data)), data)


def encode(message: Mapping[str, Any], schema: Schema) -> bytes:
    """The message of a dictionary. Values that are zero or empty are left out, as in proto3."""
    pieces: list[bytes] = []
    for number, field in schema.items():
        value = message.get(field.name)
        if value is None:
            continue
        if field.map:
            pieces += [
                sized(number, sized(1, name.encode()) + _field(2, field.kind, one))
                for name, one in value.items()
            ]
        elif not field.repeated:
            if value or field.explicit or isinstance(field.kind, Mapping):
                pieces.append(_field(number, field.kind, value))
        elif isinstance(field.kind, str) and field.kind not in ("string", "bytes"):
            if value:
                pieces.append(sized(number, b"".join(map(varint, value))))
        else:
            pieces += map(partial(_field, number, field.kind), value)
    return b"".join(pieces)


def _field(number: int, kind: "str | Schema", value: Any) -> bytes:
    if isinstance(kind, Mapping):
        return sized(number, encode(value, kind))
    encoder = _ENCODERS.get(kind)
    if encoder is not None:
        return encoder(number, value)
    return key(number, VARINT) + varint(int(value))


_ENCODERS: Final[Mapping[str, Callable[[int, Any], bytes]]] = {
    "string": lambda number, value: sized(number, value.encode()),
    "bytes": sized,
    "double": lambda number, value: key(number, FIXED64) + _DOUBLE.pack(value),
    "float": lambda number, value: key(number, FIXED32) + _FLOAT.pack(value),
}
