"""Tensors in the binary form of Open Inference Protocol v2, over REST and gRPC.

Little-endian, row-major, without padding; BYTES are a 32-bit length before each element. Source:
Triton, protocol/extension_binary_data.md.
"""

import math
import struct
from typing import Final

import numpy as np

from edgefleet.protocol.release import Datatype
from edgefleet.serving.bf16 import BF16
from edgefleet.serving.declared import bad_tensor
from edgefleet.serving.runtime import NUMPY_TYPES, Tensor

_NO_NUMPY: Final = frozenset({"BYTES", "BF16"})
_LENGTH: Final = struct.Struct("<I")
_SMALL_BYTES: Final = 4096  # an output of this size or less is copied: that costs less
_LITTLE_ENDIAN: Final = frozenset(NUMPY_TYPES.values()) - {NUMPY_TYPES["BYTES"]}


def from_binary(name: str, data: memoryview, datatype: Datatype, shape: tuple[int, ...]) -> Tensor:
    """An array of ``data``. It is copied only if it is not aligned."""
    count = math.prod(shape)
    if datatype in _NO_NUMPY:
        if datatype == "BYTES":
            return np.array(_texts(name, data, count), dtype=object).reshape(shape)
        if len(data) == count * BF16.itemsize:
            return from_binary(name, data, "UINT16", shape).view(BF16)
    dtype = NUMPY_TYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise bad_tensor(
            name, f"{datatype} {list(shape)} has {count * dtype.itemsize} bytes, not {len(data)}."
        )
    array = np.frombuffer(data, dtype)
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(shape)


def to_binary(array: Tensor) -> bytes | memoryview:
    """``array`` in the format of the binary tensor extension: a view of it, if it is large."""
    if array.nbytes <= _SMALL_BYTES and array.dtype in _LITTLE_ENDIAN:
        return array.tobytes()
    if array.dtype == object:
        pieces: list[bytes] = []
        for item in array.ravel():
            text = item.encode() if isinstance(item, str) else bytes(item)
            pieces += (_LENGTH.pack(len(text)), text)
        return b"".join(pieces)
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return flat.view(np.uint8).data


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
            raise bad_tensor(name, "The runtime accepts text in UTF-8 only.") from error
        at += 4 + size_bytes
    if len(texts) != count or at != len(data):
        raise bad_tensor(name, f"The bytes do not have exactly {count} elements.")
    return texts
