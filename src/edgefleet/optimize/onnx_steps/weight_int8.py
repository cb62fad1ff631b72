"""Weight-only INT8: a DequantizeLinear node expands each weight, computation stays in float."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.onnx_steps.graph import (
    names_in_subgraphs,
    read_graph,
    tool_errors,
    tool_versions,
    write_graph,
)
from edgefleet.optimize.recipe import Step, WeightInt8
from edgefleet.optimize.samples import Array

_OPSET: Final = 13  # DequantizeLinear by channel
_LEAST_VALUES: Final = 1024  # smaller weights cost more in nodes than they save
_MAX: Final = 127


class WeightInt8Step:
    """Symmetric, with a scale for each output channel. Calibration data is not used."""

    def apply(self, step: Step, model: Path, calibration: CalibrationData, made: Path) -> None:
        """Make the file with 8-bit weights. See ``Technique.apply``."""
        del calibration
        if not isinstance(step, WeightInt8):
            raise TypeError(step)
        with tool_errors(step):
            graph = read_graph(model)
            opset = next((one.version for one in graph.opset_import if not one.domain), 0)
            if opset < _OPSET:
                raise PublisherError(
                    "step_failed",
                    f"The model has opset {opset}; weights by channel need {_OPSET}.",
                    hint=f"Export the model with opset {_OPSET} or newer.",
                )
            _expand_weights(graph.graph)
            write_graph(graph, made)

    def versions(self) -> Mapping[str, str]:
        return tool_versions("onnx", "numpy")


def _expand_weights(graph: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    kept, nodes = [], []
    axes = _weight_axes(graph)
    for tensor in graph.initializer:
        axis = axes.get(tensor.name)
        if axis is None or tensor.data_type != TensorProto.FLOAT:
            kept.append(tensor)
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _LEAST_VALUES or values.ndim < 2 or not np.isfinite(values).all():
            kept.append(tensor)
            continue
        axis %= values.ndim
        integers, scales = quantised(values, axis)
        names = [f"{tensor.name}_{part}" for part in ("int8", "scale")]
        kept += [
            numpy_helper.from_array(integers, names[0]),
            numpy_helper.from_array(scales, names[1]),
        ]
        nodes.append(
            helper.make_node(
                "DequantizeLinear", names, [tensor.name], name=f"{tensor.name}_expand", axis=axis
            )
        )
    if not nodes:
        raise PublisherError("step_failed", "The model has no weights that 8 bits could hold.")
    operators = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend([*nodes, *operators])


def quantised(values: Array, axis: int) -> tuple[Array, Array]:
    """Weights as int8, and the scale of each channel of ``axis``."""
    others = tuple(at for at in range(values.ndim) if at != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / _MAX, 1.0).astype(np.float32)
    integers = np.clip(np.rint(values / scales), -_MAX, _MAX).astype(np.int8)
    return integers, scales.reshape(-1)


def _weight_axes(graph: Any) -> Mapping[str, int]:
    """The axis of the channels of each weight that all its readers agree on."""
    found: dict[str, set[int | None]] = {name: {None} for name in names_in_subgraphs(graph)}
    for node in graph.node:
        for at, name in enumerate(node.input):
            found.setdefault(name, set()).add(_axis(node, at))
    for info in (*graph.output, *graph.input):
        found.setdefault(info.name, set()).add(None)
    return {
        name: axis
        for name, (axis, *others) in ((name, tuple(axes)) for name, axes in found.items())
        if axis is not None and not others
    }


def _axis(node: Any, at: int) -> int | None:
    """The axis of the output channels of input ``at`` of a node. None: the input is no weight."""
    match node.op_type, at:
        case "Conv", 1:
            return 0
        case "ConvTranspose", 1:
            return 1
        case "Gemm", 1:
            turned = any(one.name == "transB" and one.i for one in node.attribute)
            return 0 if turned else 1
        case "MatMul", 1:
            return -1
        case "Gather", 0:
            return 0
        case _:
            return None
