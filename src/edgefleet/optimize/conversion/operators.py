"""The ONNX operators that have a counterpart in TFLite, as a table of functions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from edgefleet.optimize.conversion.walk import Value, Walk, attributes, unsupported
from edgefleet.optimize.samples import Array

_SAME, _VALID = 0, 1  # paddings of the schema


@dataclass(frozen=True, slots=True)
class _Window:
    """The window of a convolution or a pool: rows and columns of each."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]

    @property
    def reach(self) -> tuple[int, int]:
        """The pixels beside the first that a window covers."""
        (rows, columns), (down, right) = self.kernel, self.dilations
        return (rows - 1) * down, (columns - 1) * right

    def moved(self, given: Value, padding: int) -> tuple[int, int]:
        """Rows and columns of the result."""
        if padding == _SAME:
            return given.sizes[1], given.sizes[2]
        (rows, columns), (down, right) = self.reach, self.strides
        return (given.sizes[1] - rows - 1) // down + 1, (given.sizes[2] - columns - 1) // right + 1


def _window(kernel: Sequence[int], facts: Mapping[str, Any]) -> _Window:
    rows, columns = kernel
    down, right = facts.get("strides", (1, 1))
    tall, wide = facts.get("dilations", (1, 1))
    return _Window((rows, columns), (down, right), (tall, wide))


def _conv(walk: Walk, node: Any) -> Value:
    given, facts = walk.channels_last(node, walk.value(node)), attributes(node)
    weights = walk.needed(node, 1).astype(np.float32)
    if weights.ndim != 4:
        raise unsupported(node, "it is no convolution of images")
    window, group = _window(weights.shape[2:], facts), facts.get("group", 1)
    channels, made = given.sizes[3], weights.shape[0]
    given, padding = _padded(walk, node, given, window)
    name, options = node.output[0], dict[str, Any]()
    if group == 1:
        kind, table, ordered = "CONV_2D", "Conv2DOptions", weights.transpose(0, 2, 3, 1)
    elif group == channels and weights.shape[1] == 1:
        kind, table = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        ordered, options["depthMultiplier"] = weights.transpose(1, 2, 3, 0), made // channels
    else:
        raise unsupported(node, "its groups of channels are neither one nor all")
    bias = walk.constant(node, 2)
    whole = np.zeros(made) if bias is None else bias
    taken = [
        given.tensor,
        walk.writer.constant(f"{name}/weights", ordered),
        walk.writer.constant(f"{name}/bias", whole.astype(np.float32)),
    ]
    options |= {"padding": padding, "strideH": window.strides[0], "strideW": window.strides[1]}
    options |= {"dilationHFactor": window.dilations[0], "dilationWFactor": window.dilations[1]}
    sizes = (given.sizes[0], *window.moved(given, padding), made)
    return walk.add(node, kind, taken, sizes, table, last=True, **options)


def _padded(walk: Walk, node: Any, given: Value, window: _Window) -> tuple[Value, int]:
    """The image, with zeros around it if TFLite has no padding like it, and the padding."""
    facts = attributes(node)
    if facts.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise unsupported(node, f"it has auto_pad {facts['auto_pad']}")
    top, left, bottom, right = facts.get("pads", (0, 0, 0, 0))
    if not any((top, left, bottom, right)):
        return given, _VALID
    half = (window.reach[0] / 2, window.reach[1] / 2)
    if window.strides == (1, 1) and (top, left) == (bottom, right) == half:
        return given, _SAME
    name = f"{node.output[0]}/padded"
    around = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    batch, rows, columns, channels = given.sizes
    sizes = (batch, rows + top + bottom, columns + left + right, channels)
    taken = [given.tensor, walk.writer.constant(f"{name}/sizes", around)]
    return walk.add(node, "PAD", taken, sizes, "PadOptions", last=True, name=name), _VALID


def _pool(walk: Walk, node: Any) -> Value:
    given, facts = walk.channels_last(node, walk.value(node)), attributes(node)
    window = _window(facts["kernel_shape"], facts)
    if any(facts.get("pads", ())) or facts.get("ceil_mode") or window.dilations != (1, 1):
        raise unsupported(node, "it has padding, dilations or ceil_mode")
    kind = "MAX_POOL_2D" if node.op_type == "MaxPool" else "AVERAGE_POOL_2D"
    sizes = (given.sizes[0], *window.moved(given, _VALID), given.sizes[3])
    return walk.add(
        node, kind, [given.tensor], sizes, "Pool2DOptions", last=True, padding=_VALID,
        filterHeight=window.kernel[0], filterWidth=window.kernel[1],
        strideH=window.strides[0], strideW=window.strides[1],
    )  # fmt: skip


def _mean(walk: Walk, node: Any) -> Value:
    given, facts = walk.channels_last(node, walk.value(node)), attributes(node)
    keeps = True
    if node.op_type == "ReduceMean":
        axes = walk.constant(node, 1)
        found = facts.get("axes", [] if axes is None else axes.tolist())
        if sorted(one % 4 for one in found) != [2, 3]:
            raise unsupported(node, f"the axes {found}, not those of an image")
        keeps = bool(facts.get("keepdims", 1))
    places = walk.writer.constant(f"{node.output[0]}/axes", np.array([1, 2], np.int32))
    batch, _, _, channels = given.sizes
    sizes = (batch, 1, 1, channels) if keeps else (batch, channels)
    taken = [given.tensor, places]
    return walk.add(node, "MEAN", taken, sizes, "ReducerOptions", last=keeps, keepDims=keeps)


def _flatten(walk: Walk, node: Any) -> Value:
    given = walk.channels_first(node, walk.value(node))
    if node.op_type == "Flatten":
        wanted = [0, -1] if attributes(node).get("axis", 1) == 1 else []
    else:
        wanted = walk.needed(node, 1).tolist()
    batch, inner = given.sizes[0], int(np.prod(given.sizes[1:]))
    if not wanted or wanted[0] not in (0, -1, batch) or wanted[1:].count(-1) > 1:
        raise unsupported(node, f"the shape {wanted}: the batch must stay first")
    rest = [given.sizes[place + 1] if one == 0 else one for place, one in enumerate(wanted[1:])]
    known = int(np.prod([one for one in rest if one != -1]))
    sizes = (batch, *(inner // known if one == -1 else one for one in rest))
    if int(np.prod(sizes[1:])) != inner:
        raise unsupported(node, f"the shape {wanted} mixes cases")
    return walk.reshaped(node, given, sizes)


def _dense(walk: Walk, node: Any) -> Value:
    given, facts = walk.value(node), attributes(node)
    weights = walk.needed(node, 1).astype(np.float32)
    if len(given.sizes) != 2 or weights.ndim != 2 or facts.get("transA"):
        raise unsupported(node, "it is no product of a matrix and constant weights")
    ordered = weights if facts.get("transB") else weights.T
    ordered = ordered * np.float32(facts.get("alpha", 1.0))
    bias = walk.constant(node, 2)
    made, name = len(ordered), node.output[0]
    whole = np.zeros(made, np.float32)
    if bias is not None:
        whole = np.broadcast_to(bias, (1, made))[0] * np.float32(facts.get("beta", 1.0))
    taken = [
        given.tensor,
        walk.writer.constant(f"{name}/weights", ordered.astype(np.float32)),
        walk.writer.constant(f"{name}/bias", whole.astype(np.float32)),
    ]
    sizes = (given.sizes[0], made)
    return walk.add(node, "FULLY_CONNECTED", taken, sizes, "FullyConnectedOptions")


_BINARY: Final = {"Add": "ADD", "Mul": "MUL", "Sub": "SUB"}


def _binary(walk: Walk, node: Any) -> Value:
    kind = _BINARY[node.op_type]
    options = f"{kind.title()}Options"
    values = [walk.values.get(name) for name in node.input]
    images = any(one is not None and one.last for one in values)
    ready = [walk.channels_last(node, one) if one is not None and images else one for one in values]
    computed = [one for one in ready if one is not None]
    if len(computed) == 2 and computed[0].sizes != computed[1].sizes:
        raise unsupported(node, "its inputs differ in shape")
    first = computed[0]
    tensors = [
        _beside(walk, node, place, first) if one is None else one.tensor
        for place, one in enumerate(ready)
    ]
    return walk.add(node, kind, tensors, first.sizes, options, last=first.last)


def _beside(walk: Walk, node: Any, place: int, value: Value) -> int:
    """A constant operand, in the order of the axes of the other."""
    array: Array = walk.needed(node, place).astype(np.float32)
    if array.size == 1:
        array = array.reshape(1)
    elif value.last:
        array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(0, 2, 3, 1)
    return walk.writer.constant(f"{node.output[0]}/constant", array)


def _activation(walk: Walk, node: Any) -> Value:
    given, kind = walk.value(node), "RELU"
    if node.op_type == "Clip":
        low, high = (walk.constant(node, place) for place in (1, 2))
        if low is None or high is None or (float(low), float(high)) != (0.0, 6.0):
            raise unsupported(node, "its limits are not 0 and 6")
        kind = "RELU6"
    if walk.uses[node.input[0]] == 1 and walk.writer.fuse(given.tensor, kind):
        return given
    return walk.add(node, kind, [given.tensor], given.sizes, last=given.last)


_PLAIN: Final = {"Sigmoid": "LOGISTIC", "Tanh": "TANH"}


def _plain(walk: Walk, node: Any) -> Value:
    given = walk.value(node)
    kind = _PLAIN[node.op_type]
    return walk.add(node, kind, [given.tensor], given.sizes, last=given.last)


def _softmax(walk: Walk, node: Any) -> Value:
    given = walk.value(node)
    if attributes(node).get("axis", -1) % len(given.sizes) != len(given.sizes) - 1 or given.last:
        raise unsupported(node, "its axis is not the last one")
    return walk.add(node, "SOFTMAX", [given.tensor], given.sizes, "SoftmaxOptions", beta=1.0)


def _same(walk: Walk, node: Any) -> Value:
    return replace(walk.value(node))


OPERATORS: Final[Mapping[str, Callable[[Walk, Any], Value]]] = MappingProxyType(
    {
        "Conv": _conv,
        "MaxPool": _pool,
        "AveragePool": _pool,
        "GlobalAveragePool": _mean,
        "ReduceMean": _mean,
        "Flatten": _flatten,
        "Reshape": _flatten,
        "Gemm": _dense,
        "MatMul": _dense,
        **dict.fromkeys(_BINARY, _binary),
        "Relu": _activation,
        "Clip": _activation,
        **dict.fromkeys(_PLAIN, _plain),
        "Softmax": _softmax,
        "Identity": _same,
        "Dropout": _same,
    }
)
"""The functions by the ONNX operator."""
