"""JSON of a megabyte and more: decoded and encoded in a thread, piece by piece.

The event loop answers other requests meanwhile. One call of the decoder would hold the interpreter
until its end, so the numbers of a tensor are decoded and encoded some thousand at a time, which
also takes less memory than a list of all of them.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from edgefleet.protocol.wire import encode
from edgefleet.serving.bf16 import BF16, from_numbers, numbers
from edgefleet.serving.runtime import Tensor

T = TypeVar("T")

_PIECE_BYTES: Final = 64 << 10
_PIECE_VALUES: Final = 8_192
_NUMBERS: Final = b"0123456789+-.eE \t\r\n"
_TO_SPACES: Final = bytes.maketrans(b"[]", b"  ")


class Aside:
    """Runs work in one thread, in its order: so only one of them takes memory at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "long-json")  # it starts with its first work

    def run(self, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)


def decode_numbers(
    data: bytes,
    dtype: "np.dtype[Any]",
    decoder: "msgspec.json.Decoder[list[Any]]",
    shape: Sequence[int],
) -> Tensor | None:
    """The numbers of valid JSON, a list that is flat or nested as ``shape`` says.

    None if it is neither. ``decoder`` is that of a flat list. Raises the errors of ``decoder`` and
    of numpy for elements that are no numbers of ``dtype``.
    """
    count = math.prod(shape)
    if not 0 < count <= len(data):
        return None
    marks = data.translate(None, _NUMBERS)
    if marks == _marks_of((count,)):
        text = data
        at, end = data.index(b"[") + 1, data.rindex(b"]")
    elif marks == _marks_of(shape):
        text = data.translate(_TO_SPACES)
        at, end = 0, len(text)
    else:
        return None
    array = np.empty(count, dtype)
    packed = from_numbers if dtype == BF16 else partial(np.array, dtype=dtype)
    filled = 0
    while at < end:
        cut = text.find(b",", min(at + _PIECE_BYTES, end), end)
        cut = end if cut < 0 else cut
        values = decoder.decode(b"[%b]" % text[at:cut])
        array[filled : filled + len(values)] = packed(values)
        filled += len(values)
        at = cut + 1
    return array if filled == count else None


def _marks_of(shape: Sequence[int]) -> bytes:
    """The brackets and commas of a list of this shape."""
    marks = b""
    for depth, size in enumerate(reversed(shape)):
        marks = b"[%b]" % (b"," * (size - 1) if depth == 0 else b",".join([marks] * size))
    return marks


def encoded(
    head: Mapping[str, object], outputs: Sequence[tuple[Mapping[str, object], Tensor]]
) -> bytes:
    """The JSON of an answer: ``head``, and ``outputs`` with the values of their tensors."""
    pieces = [encode(head)[:-1], b',"outputs":[']
    for place, (described, tensor) in enumerate(outputs):
        pieces += (b"," if place else b"", encode(described)[:-1], b',"data":[')
        pieces += (b",".join(_values(tensor.reshape(-1))), b"]}")
    pieces.append(b"]}")
    return b"".join(pieces)


def _values(flat: Tensor) -> Iterator[bytes]:
    for at in range(0, len(flat), _PIECE_VALUES):
        yield encode(numbers(flat[at : at + _PIECE_VALUES]).tolist())[1:-1]
