"""The channel between the serving process and a worker: a socket pair and shared memory.

Messages on the socket are small; the kernel keeps their boundaries. Tensors are in the shared
memory, which has room for one request and its answer: a worker runs one request at a time. A
message that describes the same tensors has the same bytes, so both processes keep the descriptions
and views of the shapes that clients use, and read and write them without work of their own.
"""

import math
import mmap
import os
from collections.abc import Sequence
from struct import Struct
from typing import Final

import msgspec
import numpy as np

from edgefleet.protocol.release import Datatype
from edgefleet.serving.binary_tensors import from_binary, to_binary
from edgefleet.serving.limits import KEPT_BYTES
from edgefleet.serving.runtime import NUMPY_TYPES, QuantisedTensor, Tensor

MESSAGE_BYTES: Final = 16 << 10  # more than 64 tensors of 16 axes need
PLANS: Final = 64  # combinations of shapes that are kept
RUN_COST: Final = Struct(
    "<QQ"
)  # before each message of the worker: time and CPU of the model, in ns
_ALIGNMENT: Final = 64
_FIRST_BYTES: Final = 64 << 10


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """A tensor in the shared memory, or in a request body in the serving process's ``BodyMemory``.

    ``index`` is its place in the variant's inputs or outputs.
    """

    index: int
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    in_body: bool = False


class Load(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Load the ServedRelease whose JSON is at the start of the shared memory."""

    size_bytes: int


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The release is loaded. ``base_kib`` was the resident memory of the worker before it.

    ``times`` is what ``RunTimes`` has learnt from golden cases.
    """

    times: tuple[tuple[int, float], ...]
    base_kib: int
    quantised: dict[str, QuantisedTensor]


class Run(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Infer. ``outputs`` are indices of the variant's outputs."""

    inputs: tuple[Placed, ...]
    outputs: tuple[int, ...]


class Made(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The outputs of a run, in the wanted order."""

    outputs: tuple[Placed, ...]


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A load or a run failed. ``code`` is one of base.errors."""

    code: str
    message: str
    field: str | None = None


Message = Load | Loaded | Run | Made | Failed

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)
encode_message: Final = _ENCODER.encode
decode_message: Final = _DECODER.decode


class SharedArea:
    """The shared memory at ``descriptor``, as one of the two processes sees it.

    It grows and never shrinks, so a view stays valid.
    """

    def __init__(self, descriptor: int, access: int = mmap.ACCESS_WRITE) -> None:
        self._descriptor = descriptor
        if os.fstat(descriptor).st_size < _FIRST_BYTES:
            os.ftruncate(descriptor, _FIRST_BYTES)
        self._map = mmap.mmap(descriptor, 0, access=access)
        self._size_bytes = len(self._map)

    def write(self, data: bytes | memoryview, *, at: int = 0) -> None:
        self._reserve(at + len(data), grow=True)
        self._map[at : at + len(data)] = data

    def read(self, size_bytes: int, *, at: int = 0) -> bytes:
        self._reserve(at + size_bytes, grow=False)
        return self._map[at : at + size_bytes]

    def place(
        self,
        tensors: Sequence[Tensor],
        indices: Sequence[int],
        *,
        after: int = 0,
        bodies: Sequence[int] | None = None,
    ) -> tuple[Placed, ...]:
        """Places for ``tensors`` behind the first ``after`` bytes. Text is written at once.

        ``bodies`` are places that tensors have in request bodies, or -1.
        """
        placed: list[Placed] = []
        at = after
        for index, tensor, there in zip(
            indices, tensors, bodies or [-1] * len(indices), strict=True
        ):
            if there >= 0:
                placed.append(Placed(index, tensor.shape, there, tensor.nbytes, in_body=True))
                continue
            at = -(-at // _ALIGNMENT) * _ALIGNMENT
            if tensor.dtype == object:
                data = to_binary(tensor)
                self.write(data, at=at)
                size_bytes = len(data)
            else:
                size_bytes = tensor.nbytes
            placed.append(Placed(index, tensor.shape, at, size_bytes))
            at += size_bytes
        self._reserve(at, grow=True)
        return tuple(placed)

    def tensor(self, placed: Placed, datatype: Datatype) -> Tensor:
        """A view of the tensor; a copy of text. Raises ValueError if it does not fit."""
        if placed.offset < 0 or placed.size_bytes < 0 or min(placed.shape, default=0) < 0:
            raise ValueError(f"{placed} is not a tensor")
        if datatype == "BYTES":
            data = self.read(placed.size_bytes, at=placed.offset)
            return from_binary("text", memoryview(data), datatype, placed.shape)
        dtype = NUMPY_TYPES[datatype]
        if math.prod(placed.shape) * dtype.itemsize != placed.size_bytes:
            raise ValueError(f"{placed} is not a {datatype} tensor")
        self._reserve(placed.offset + placed.size_bytes, grow=False)
        return np.ndarray(placed.shape, dtype, self._map, placed.offset)

    def free(self) -> None:
        """Return the memory of a large request to the system."""
        if self._size_bytes > KEPT_BYTES:
            self._map.madvise(mmap.MADV_REMOVE, KEPT_BYTES, self._size_bytes - KEPT_BYTES)

    def _reserve(self, size_bytes: int, *, grow: bool) -> None:
        """Map at least ``size_bytes``. Raises ValueError if there are not so many."""
        if size_bytes <= self._size_bytes:
            return
        if grow and os.fstat(self._descriptor).st_size < size_bytes:
            os.ftruncate(self._descriptor, max(size_bytes, 2 * self._size_bytes))
        self._map = mmap.mmap(self._descriptor, 0)
        self._size_bytes = len(self._map)
        if size_bytes > self._size_bytes:
            raise ValueError(f"{size_bytes} bytes are more than the shared memory has")


def end_of(placed: Sequence[Placed]) -> int:
    """The first byte of the shared memory behind the tensors."""
    ends = [one.offset + one.size_bytes for one in placed if not one.in_body]
    return max(ends, default=0)
