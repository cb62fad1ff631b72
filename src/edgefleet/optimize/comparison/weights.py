"""How far the weights of two ONNX files are apart, by name, with integers made real numbers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.serving.model_file import ModelFacts

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_QUANTISED: Final = "_quantized"  # the suffix that ONNX Runtime's quantiser gives
_FLOATS: Final = ("float16", "float32", "float64")

Weights = Mapping[str, NDArray[Any]]


def distances(before: Path, after: Path, facts: tuple[ModelFacts, ModelFacts]) -> dict[str, float]:
    """``|a - b| / |a|`` (Euclidean norms) of each weight that both files have in one shape.

    Empty where one of the files is not ONNX: the others are not compared.
    """
    if any("onnx" not in one.runtimes for one in facts):
        return {}
    old, new = _weights(before), _weights(after)
    found: dict[str, float] = {}
    for name, array in old.items():
        other = new.get(name)
        if other is None or other.shape != array.shape:
            continue
        norm = float(np.linalg.norm(array))
        apart = float(np.linalg.norm(array.astype(np.float64) - other))
        found[name] = apart / norm if norm else float(apart > 0)
    return found


def median_distance(found: Mapping[str, float]) -> float | None:
    """The median over the weights. None: there are none."""
    return median(found.values()) if found else None


def _weights(path: Path) -> Weights:
    """Float constants of at least two elements, and quantised ones as the file dequantises them."""
    import onnx  # noqa: PLC0415 - 31 MiB, needed for models only

    model = onnx.load_model(str(path), load_external_data=False)
    arrays: dict[str, NDArray[Any]] = {
        one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer
    }
    found = {
        name: array.astype(np.float32)
        for name, array in arrays.items()
        if array.dtype.name in _FLOATS and array.size > 1
    }
    for name, array in _dequantised(model.graph, arrays):
        found[name.removesuffix(_QUANTISED)] = array
    return found


def _dequantised(graph: "GraphProto", arrays: Weights) -> Iterator[tuple[str, NDArray[Any]]]:
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in arrays:
            continue
        array, scale = arrays[node.input[0]], arrays.get(node.input[1])
        zero = arrays.get(node.input[2]) if len(node.input) > 2 else np.array(0)
        if scale is None or zero is None or array.size <= 1:
            continue
        shape = _along(node, array.ndim, scale)
        if shape is None:
            continue
        real = array.astype(np.float32) - zero.astype(np.float32).reshape(
            shape if zero.size > 1 else ()
        )
        yield node.input[0], real * scale.astype(np.float32).reshape(shape)


def _along(node: "NodeProto", rank: int, scale: NDArray[Any]) -> tuple[int, ...] | None:
    """The shape in which the scale multiplies the array. None: it is by blocks."""
    if scale.size == 1:
        return ()
    axis = next((int(one.i) for one in node.attribute if one.name == "axis"), 1) % rank
    if scale.ndim != 1:
        return None
    return tuple(scale.size if at == axis else 1 for at in range(rank))
