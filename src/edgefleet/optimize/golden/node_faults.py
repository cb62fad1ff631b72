"""Faults in the nodes of an ONNX graph: operators, attributes and what stands between them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgefleet.optimize.samples import Array


@dataclass(frozen=True, slots=True)
class Place:
    """A node of a model, which an edit changes in place."""

    proto: Any
    node: Any
    index: int


Edit = Callable[[Place], None]


def edits(node: Any) -> Iterator[tuple[str, Edit]]:
    """The faults that a node may have: their kinds and the changes."""
    match node.op_type:
        case "Relu":
            yield "ReLU removed", _becomes("Identity")
            yield "ReLU is the absolute value", _becomes("Abs")
            yield "ReLU leaks", _becomes("LeakyRelu", alpha=0.2)
            for limit in (0.5, 2.0, 6.0):
                yield "activation saturated", _after("Clip", ("low", 0.0), ("high", limit))
            for power in (11, 13, 15):
                yield "half precision overflows", _half(float(2**power))
            yield "half precision underflows", _half(2.0**-23)
            for step in (0.25, 1.0):
                yield "activation rounded down", _floor(step)
        case "Conv":
            yield "padding shifted", _pads_shifted
            yield "groups of rows shifted", _rolled
        case "MaxPool":
            yield (
                "maximum is the average",
                _becomes("AveragePool", keep=("kernel_shape", "strides", "pads")),
            )
        case "AveragePool":
            yield (
                "average is the maximum",
                _becomes("MaxPool", keep=("kernel_shape", "strides", "pads")),
            )
        case "BatchNormalization":
            yield "batch norm stale", _stale((3, 4))
            yield "mean of batch norm stale", _stale((3,))
            yield "variance of batch norm stale", _stale((4,))
            yield "epsilon of batch norm wrong", _epsilon
        case "Flatten":
            yield "layout wrong", _layout
        case "QuantizeLinear":
            for factor in (0.5, 1.25):
                yield "scale of activations wrong", _parameter(1, _times(factor))
            for offset in (2, 16):
                yield "zero point of activations wrong", _parameter(2, _moved(offset))
        case "DequantizeLinear":
            yield "scale not that of its tensor", _parameter(1, _scale_moved)
        case _:
            return


def _times(factor: float) -> Callable[[Array], Array]:
    return lambda scale: np.asarray(scale * factor)


def _moved(offset: int) -> Callable[[Array], Array]:
    def change(zero: Array) -> Array:
        limits = np.iinfo(zero.dtype)
        return np.clip(zero.astype(np.int64) + offset, limits.min, limits.max).astype(zero.dtype)

    return change


def _scale_moved(scale: Array) -> Array:
    """Of a tensor with one scale: twice it. Else the scale of the next channel."""
    return np.roll(scale, 1) if scale.size > 1 else (scale * 2).astype(scale.dtype)


def _parameter(place: int, change: Callable[[Array], Array]) -> Edit:
    """Changes an initialiser of this node alone."""

    def edit(at: Place) -> None:
        if len(at.node.input) <= place:
            return
        value = _initializer(at.proto, at.node.input[place])
        if value is None:
            return
        name = f"{at.node.input[place]}.fault{at.index}"
        made = np.asarray(change(value)).astype(value.dtype)
        at.proto.graph.initializer.append(numpy_helper.from_array(made, name))
        at.node.input[place] = name

    return edit


def _becomes(op_type: str, keep: tuple[str, ...] = (), **attributes: float) -> Edit:
    def edit(at: Place) -> None:
        kept = [one for one in at.node.attribute if one.name in keep]
        at.node.op_type = op_type
        del at.node.attribute[:]
        at.node.attribute.extend(kept)
        at.node.attribute.extend(helper.make_attribute(*pair) for pair in attributes.items())

    return edit


def _after(op_type: str, *constants: tuple[str, float]) -> Edit:
    """Puts a node between the output of a node and its readers."""

    def edit(at: Place) -> None:
        output, inner = at.node.output[0], f"{at.node.output[0]}.before"
        at.node.output[0] = inner
        names = []
        for label, value in constants:
            names.append(f"{output}.{label}")
            at.proto.graph.initializer.append(
                numpy_helper.from_array(np.array(value, np.float32), names[-1])
            )
        _insert(at.proto, at.index + 1, [helper.make_node(op_type, [inner, *names], [output])])

    return edit


def _half(scale: float) -> Edit:
    """The values pass through half precision, ``scale`` times as large."""

    def edit(at: Place) -> None:
        output = at.node.output[0]
        parts = [f"{output}.{part}" for part in ("before", "large", "half", "single", "scale")]
        before, large, half, single, factor = parts
        at.node.output[0] = before
        at.proto.graph.initializer.append(
            numpy_helper.from_array(np.array(scale, np.float32), factor)
        )
        nodes = [
            helper.make_node("Mul", [before, factor], [large]),
            helper.make_node("Cast", [large], [half], to=TensorProto.FLOAT16),
            helper.make_node("Cast", [half], [single], to=TensorProto.FLOAT),
            helper.make_node("Div", [single, factor], [output]),
        ]
        _insert(at.proto, at.index + 1, nodes)

    return edit


def _floor(step: float) -> Edit:
    """The values are rounded down to multiples of ``step``."""

    def edit(at: Place) -> None:
        output = at.node.output[0]
        before, divided, whole, factor = (
            f"{output}.{part}" for part in ("before", "divided", "whole", "step")
        )
        at.node.output[0] = before
        at.proto.graph.initializer.append(
            numpy_helper.from_array(np.array(step, np.float32), factor)
        )
        nodes = [
            helper.make_node("Div", [before, factor], [divided]),
            helper.make_node("Floor", [divided], [whole]),
            helper.make_node("Mul", [whole, factor], [output]),
        ]
        _insert(at.proto, at.index + 1, nodes)

    return edit


def _pads_shifted(at: Place) -> None:
    """All padding of an axis comes at its end."""
    for one in at.node.attribute:
        if one.name == "pads":
            half = len(one.ints) // 2
            pads = [0] * half + [one.ints[axis] + one.ints[axis + half] for axis in range(half)]
            one.CopyFrom(helper.make_attribute("pads", pads))


def _rolled(at: Place) -> None:
    """The first row of the kernel is read as the last."""
    kernel = _initializer(at.proto, at.node.input[1])
    if kernel is None:
        return
    name = f"{at.node.input[1]}.fault"
    at.proto.graph.initializer.append(numpy_helper.from_array(np.roll(kernel, 1, axis=2), name))
    at.node.input[1] = name


def _stale(places: tuple[int, ...]) -> Edit:
    """The running mean is 0, the running variance 1, as before the training."""

    def edit(at: Place) -> None:
        for place in places:
            fresh = np.zeros_like if place == 3 else np.ones_like
            _parameter(place, fresh)(at)

    return edit


def _epsilon(at: Place) -> None:
    kept = [one for one in at.node.attribute if one.name != "epsilon"]
    del at.node.attribute[:]
    at.node.attribute.extend([*kept, helper.make_attribute("epsilon", 0.1)])


def _layout(at: Place) -> None:
    """Channels last are read as channels first."""
    turned = f"{at.node.input[0]}.turned"
    before = helper.make_node("Transpose", [at.node.input[0]], [turned], perm=[0, 2, 3, 1])
    at.node.input[0] = turned
    _insert(at.proto, at.index, [before])


def _initializer(proto: Any, name: str) -> Array | None:
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    return None


def _insert(proto: Any, index: int, nodes: list[Any]) -> None:
    after = list(proto.graph.node)[index:]
    del proto.graph.node[index:]
    proto.graph.node.extend([*nodes, *after])
