"""Bias correction: takes the mean error that rounded weights cause out of the biases.

A rounded weight moves the mean of its output by the rounding error times the mean of its input.
Behind a ReLU those means are not zero, and in a depthwise convolution few products average the
error out; so it adds up over the layers. With the means of the inputs on calibration data the shift
is known, and the bias takes it back. Source: Nagel et al. 2019, "Data-Free Quantization Through
Weight Equalization and Bias Correction", section 4.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefleet.optimize.onnx_steps.graph import names_in_subgraphs
from edgefleet.optimize.onnx_steps.weights import channel_axis, levels_of, on_grid
from edgefleet.optimize.recipe import StaticInt8
from edgefleet.optimize.samples import Array

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_OPERATORS: Final = frozenset({"Conv", "Gemm"})


@dataclass(frozen=True, slots=True)
class _Layer:
    """A node with constant weights, and a constant bias or none."""

    node: NodeProto
    weight: Array
    rounded: Array
    bias: Array

    def corrected(self, mean: Array) -> Array:
        """The bias, less the shift of the mean output. ``mean`` has that of each input channel."""
        error = self.weight.astype(np.float64) - self.rounded
        if self.node.op_type == "Gemm":
            turned = channel_axis(self.node, 2) == 0
            shift = error @ mean if turned else mean @ error
        else:
            groups = _integer(self.node, "group", 1)
            each = error.sum(axis=tuple(range(2, error.ndim))).reshape(groups, -1, error.shape[1])
            shift = np.einsum("goi,gi->go", each, mean.reshape(groups, -1)).reshape(-1)
        return (self.bias + shift).astype(self.weight.dtype)


def correct_biases(model: ModelProto, step: StaticInt8, batches: Iterable[Any]) -> None:
    """Round the weights of convolutions and Gemm as ``step`` will, and correct their biases.

    ``batches`` are those of the calibration data, inputs by name. Nodes that stay in float, whose
    weights or bias are computed, or whose weight is no FP32 are left as they are.
    """
    layers = [layer for node in model.graph.node if (layer := _layer(model.graph, node, step))]
    if not layers:
        return
    means = _means(model, {layer.node.input[0]: layer for layer in layers}, batches)
    names = [name for node in model.graph.node for name in node.input]
    shared = {name for name, count in Counter(names).items() if count > 1}
    shared |= names_in_subgraphs(model.graph)
    for place, layer in enumerate(layers):
        data, weight, *rest = layer.node.input
        own = f"{weight}/{place}" if weight in shared else weight
        bias = next(filter(None, rest), f"{own}/bias")
        named = [own, f"{bias}/{place}" if bias in shared else bias]
        values = (layer.rounded, layer.corrected(means[data]))
        for name, value in zip(named, values, strict=True):
            _put(model.graph, name, value)
        del layer.node.input[:]
        layer.node.input.extend([data, *named])
    _drop_unread(model.graph, shared)


def _layer(graph: GraphProto, node: NodeProto, step: StaticInt8) -> _Layer | None:
    from onnx import TensorProto, numpy_helper  # noqa: PLC0415

    if node.op_type not in _OPERATORS or node.name in step.keep_float or not _is_plain(node):
        return None
    constants = {one.name: one for one in graph.initializer}
    weight, bias = constants.get(node.input[1]), None
    if weight is None or weight.data_type != TensorProto.FLOAT or node.input[0] in constants:
        return None
    values = numpy_helper.to_array(weight)
    axis = channel_axis(node, values.ndim)
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in constants:
            return None
        bias = numpy_helper.to_array(constants[node.input[2]])
    channels = values.shape[axis]
    rounded = on_grid(values, axis if step.per_channel else None, levels_of(step))
    whole = np.zeros(channels, values.dtype) if bias is None else bias.reshape(-1)
    return _Layer(node, values, rounded, np.broadcast_to(whole, (channels,)))


def _is_plain(node: NodeProto) -> bool:
    """False for a Gemm that scales, or that turns its input."""
    from onnx import helper  # noqa: PLC0415

    found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    return node.op_type == "Conv" or (
        found.get("alpha", 1.0), found.get("beta", 1.0), found.get("transA", 0)
    ) == (1.0, 1.0, 0)  # fmt: skip


def _means(
    model: ModelProto, layers: Mapping[str, _Layer], batches: Iterable[Mapping[str, Array]]
) -> dict[str, Array]:
    """The mean of each input channel by the name of a tensor, over all cases and places."""
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for name, layer in layers.items():
        made = f"{name}/mean"
        kind = "GlobalAveragePool" if layer.node.op_type == "Conv" else "Identity"
        watched.graph.node.append(onnx.helper.make_node(kind, [name], [made]))
        watched.graph.output.append(
            onnx.helper.make_tensor_value_info(made, onnx.TensorProto.FLOAT, None)
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    sums: list[Any] = [0.0] * len(layers)
    cases = 0
    for batch in batches:
        found = [np.asarray(one) for one in session.run(None, dict(batch))]
        count = len(found[0])
        cases += count
        for at, one in enumerate(found):
            sums[at] = sums[at] + one.reshape(count, -1).astype(np.float64).sum(axis=0)
    return {name: total / cases for name, total in zip(layers, sums, strict=True)}


def _integer(node: NodeProto, name: str, otherwise: int) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), otherwise)


def _put(graph: GraphProto, name: str, value: Array) -> None:
    """Add the constant, or replace the one of that name."""
    from onnx import numpy_helper  # noqa: PLC0415

    made = numpy_helper.from_array(np.ascontiguousarray(value), name)
    for one in graph.initializer:
        if one.name == name:
            one.CopyFrom(made)
            return
    graph.initializer.append(made)


def _drop_unread(graph: GraphProto, names: set[str]) -> None:
    """Remove the constants of these names that no node reads any more."""
    read = {name for node in graph.node for name in node.input} | names_in_subgraphs(graph)
    read |= {info.name for info in graph.output}
    kept = [one for one in graph.initializer if one.name in read or one.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)
