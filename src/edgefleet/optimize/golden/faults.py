"""Plants the faults of broken kernels and converters in an ONNX model.

They measure a golden set: which share of the faults that change answers does it notice? Each fault
is one change of one kind at one place, such as one channel of one layer. ``plant`` gives all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from edgefleet.optimize.golden.node_faults import Place, edits
from edgefleet.optimize.samples import Array

_PLACES: Final = 3  # channels of one tensor at which a fault is planted
_GRID: Final = 127  # steps of an 8-bit weight on each side of 0

Change = Callable[[Array, int], Array]
"""A tensor with its channels first, and a channel, to the tensor with the fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A model with one fault. ``kind`` is what broke, ``place`` where."""

    kind: str
    place: str
    model: bytes


def plant(model: bytes) -> Iterator[Fault]:
    """All faults that the model has a place for. The same model gives the same faults."""
    proto = onnx.load_from_string(model)
    yield from _in_tensors(proto)
    yield from _in_nodes(proto)


def _channel(change: Callable[[Array], Array]) -> Change:
    def one(tensor: Array, channel: int) -> Array:
        made = tensor.copy()
        made[channel] = change(made[channel])
        return made

    return one


def _largest(change: Callable[[np.float32], float]) -> Change:
    """Changes the largest value of the channel."""

    def one(tensor: Array, channel: int) -> Array:
        made = tensor.copy()
        flat = made[channel].reshape(-1)
        at = int(np.abs(flat).argmax())
        flat[at] = change(np.float32(flat[at]))
        made[channel] = flat.reshape(made[channel].shape)
        return made

    return one


def _whole(change: Callable[[Array], Array]) -> Change:
    return lambda tensor, _: change(tensor)


def _bit(number: int) -> Callable[[np.float32], float]:
    def flip(value: np.float32) -> float:
        bits = np.array(value, np.float32).view(np.uint32) ^ np.uint32(1 << number)
        return float(bits.view(np.float32))

    return flip


def _swap(tensor: Array, channel: int) -> Array:
    made, other = tensor.copy(), (channel + 1) % len(tensor)
    made[[channel, other]] = made[[other, channel]]
    return made


def _drop_input(tensor: Array, channel: int) -> Array:
    made = tensor.copy()
    made[:, channel % made.shape[1]] = 0
    return made


def _step(tensor: Array) -> float:
    return float(np.abs(tensor).max()) / _GRID or 1.0


WEIGHTS: Final[dict[str, Change]] = {
    "sign of a channel flipped": _channel(np.negative),
    "sign of a weight flipped": _largest(lambda value: -float(value)),
    "channel dropped": _channel(np.zeros_like),
    "input channel dropped": _drop_input,
    "two channels swapped": _swap,
    "channels shifted by one": _whole(lambda tensor: np.roll(tensor, 1, axis=0)),
    "scale of a channel wrong": _channel(lambda row: row * np.float32(1.5)),
    "scale wrong": _whole(lambda tensor: tensor * np.float32(0.5)),
    "zero point wrong": _whole(lambda tensor: tensor + np.float32(8 * _step(tensor))),
    "zero point of a channel wrong": _channel(lambda row: row + np.float32(16 * _step(row))),
    "rounded down": _whole(
        lambda tensor: (np.floor(tensor / (4 * _step(tensor))) * (4 * _step(tensor))).astype("f4")
    ),
    "too few bits": _whole(
        lambda tensor: (np.rint(tensor / (32 * _step(tensor))) * (32 * _step(tensor))).astype("f4")
    ),
    "weights saturated": _whole(
        lambda tensor: np.clip(tensor, -40 * _step(tensor), 40 * _step(tensor))
    ),
    "bit of an exponent flipped (x2)": _largest(_bit(23)),
    "bit of an exponent flipped (x16)": _largest(_bit(25)),
    "high bit of an exponent flipped": _largest(_bit(30)),
    "weight not a number": _largest(lambda _: float("nan")),
    "small weights lost": _whole(
        lambda tensor: np.where(np.abs(tensor) < 16 * _step(tensor), np.float32(0), tensor)
    ),
}
MATRICES: Final[dict[str, Change]] = {
    "weights transposed": _whole(
        lambda tensor: tensor.reshape(tensor.shape[::-1]).transpose().reshape(tensor.shape)
    ),
    "kernel mirrored": _whole(lambda tensor: tensor[..., ::-1].copy()),
}
BIASES: Final[dict[str, Change]] = {
    "bias dropped": _whole(np.zeros_like),
    "bias of a channel dropped": _channel(np.zeros_like),
    "bias negated": _whole(np.negative),
    "bias doubled": _whole(lambda tensor: tensor * np.float32(2)),
    "biases shifted by one": _whole(lambda tensor: np.roll(tensor, 1)),
}
INTEGERS: Final[dict[str, Change]] = {
    "integer weights saturated": _whole(
        lambda tensor: np.clip(tensor, -48, 48).astype(tensor.dtype)
    ),
    "integer weights one too low": _whole(
        lambda tensor: np.maximum(tensor.astype(np.int16) - 2, -128).astype(tensor.dtype)
    ),
    "high bit of integer weights flipped": _channel(lambda row: row ^ row.dtype.type(64)),
}
_ONCE: Final = frozenset(name for name, change in (*WEIGHTS.items(), *BIASES.items())
                         if change.__qualname__.startswith("_whole"))  # fmt: skip


def _in_tensors(proto: Any) -> Iterator[Fault]:
    users = {
        name: (node, place) for node in proto.graph.node for place, name in enumerate(node.input)
    }
    for index, tensor in enumerate(proto.graph.initializer):
        node, place = users.get(tensor.name, (None, 0))
        if node is None:
            continue
        array = numpy_helper.to_array(tensor)
        for kind, change, axis in _changes(array, node, place):
            first = np.moveaxis(array, axis, 0)
            channels = [0] if kind in _ONCE or kind in MATRICES else _spread(len(first))
            for channel in channels:
                with np.errstate(all="ignore"):
                    made = np.moveaxis(change(first.copy(), channel), 0, axis)
                if np.array_equal(made, array):
                    continue
                copy = _copy(proto)
                copy.graph.initializer[index].CopyFrom(
                    numpy_helper.from_array(np.ascontiguousarray(made), tensor.name)
                )
                yield Fault(kind, f"{tensor.name}[{channel}]", copy.SerializeToString())


def _changes(array: Array, node: Any, place: int) -> Iterator[tuple[str, Change, int]]:
    """The faults of a tensor, and the axis of its channels."""
    if node.op_type in {"DequantizeLinear", "QuantizeLinear"}:
        if place == 0 and array.dtype == np.int8 and array.ndim > 1:
            yield from ((kind, change, 0) for kind, change in INTEGERS.items())
        return
    if array.dtype != np.float32 or node.op_type not in {"Conv", "Gemm", "MatMul", "Add"}:
        return
    if array.ndim == 1 or node.op_type == "Add":
        if array.size > 1:
            yield from ((kind, change, array.ndim - 1) for kind, change in BIASES.items())
        return
    is_turned = node.op_type == "MatMul" or (
        node.op_type == "Gemm" and not any(one.name == "transB" and one.i for one in node.attribute)
    )
    axis = array.ndim - 1 if is_turned else 0
    yield from ((kind, change, axis) for kind, change in (WEIGHTS | MATRICES).items())


def _spread(channels: int) -> list[int]:
    return sorted({round(at) for at in np.linspace(0, channels - 1, _PLACES)})


def _in_nodes(proto: Any) -> Iterator[Fault]:
    for index, node in enumerate(proto.graph.node):
        name = node.output[0]
        for kind, edit in edits(node):
            copy = _copy(proto)
            edit(Place(copy, copy.graph.node[index], index))
            yield Fault(kind, name, copy.SerializeToString())


def _copy(proto: Any) -> Any:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy
