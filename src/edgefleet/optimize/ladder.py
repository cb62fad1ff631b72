"""The sensitivity ladder: which nodes of an ONNX graph suffer most when they become 8-bit.

Each node is quantised alone: its weights and the tensors that it reads take only the values that
8 bits have, and the rest of the graph stays in float. The error is that of the model's outputs. A
search keeps the worst 1, 2, 4, ... nodes in float until a candidate qualifies
(``StaticInt8.keep_float``). Ranges are the least and greatest values on the calibration data,
whatever ``StaticInt8.calibration`` says: the order is needed, not the very error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefleet.optimize.evaluation_data import Arrays, CalibrationData, EvaluationData
from edgefleet.optimize.onnx_steps.weights import channel_axis, levels_of, on_grid
from edgefleet.optimize.recipe import StaticInt8
from edgefleet.optimize.samples import Array

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

OPERATORS: Final = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "LayerNormalization",
     "GlobalAveragePool", "AveragePool", "Sigmoid", "Concat"}
)  # fmt: skip
"""The operators whose nodes are ranked."""
_CASES: Final = 64  # of the calibration and of the evaluation data
_BATCH: Final = 16
_PERFECT_DB: Final = 200.0
_LEVELS: Final = {"uint8": 255, "int8": 254, "int16": 65_534}


def worst_first(
    model: Path, step: StaticInt8, calibration: CalibrationData, evaluation: EvaluationData
) -> dict[str, float]:
    """``sensitivity``, the most sensitive node first. A node without a name is left out.

    Takes a run of the model over 64 cases for each node.
    """
    found = sensitivity(model, step, calibration, evaluation)
    return {name: found[name] for name in in_order(found)}


def in_order(quality_db: Mapping[str, float]) -> tuple[str, ...]:
    """The names by rising quality. Equal ones stay in the given order."""
    return tuple(sorted(quality_db, key=lambda name: quality_db[name]))


def rungs(ordered: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The sets to keep in float, one after the other: none, then the worst 1, 2, 4, 8, ..."""
    counts = [0]
    while (after := max(1, counts[-1] * 2)) < len(ordered):
        counts.append(after)
    return tuple(tuple(ordered[:count]) for count in counts)


def sensitivity(
    model: Path,
    step: StaticInt8,
    calibration: CalibrationData,
    evaluation: EvaluationData,
    *,
    on_node: Callable[[str, float], None] = lambda _name, _db: None,
) -> dict[str, float]:
    """By node, in the order of the graph: the ratio of signal to error of the outputs in decibels.

    The least over all outputs, if only this node is quantised as ``step`` says. 200 means no error.
    """
    import onnx  # noqa: PLC0415

    whole = onnx.load(model, load_external_data=False)
    del whole.graph.value_info[:]
    nodes = [node for node in whole.graph.node if node.op_type in OPERATORS and node.name]
    ranges = _ranges(whole, nodes, _first(calibration.inputs))
    inputs = _first(evaluation.inputs)
    clean = _outputs(whole, inputs)
    found = dict[str, float]()
    for node in nodes:
        changed = _alone(whole, node, ranges, step)
        found[node.name] = min(map(sqnr_db, clean, _outputs(changed, inputs)))
        on_node(node.name, found[node.name])
    return found


def sqnr_db(clean: Array, noisy: Array) -> float:
    """The ratio of the power of ``clean`` to that of the error, in decibels, at most 200.

    Not finite values in ``noisy`` give minus infinity.
    """
    signal = clean.astype(np.float64)
    error = noisy.astype(np.float64) - signal
    if not np.all(np.isfinite(error)):
        return float("-inf")
    power, lost = float(np.mean(signal**2)), float(np.mean(error**2))
    if lost == 0.0:
        return _PERFECT_DB
    if power == 0.0:
        return float("-inf")
    return min(_PERFECT_DB, 10 * float(np.log10(power / lost)))


def _first(inputs: Arrays) -> dict[str, Array]:
    return {name: array[:_CASES] for name, array in inputs.items()}


def _batches(model: ModelProto, inputs: Mapping[str, Array]) -> Iterator[list[Array]]:
    """All outputs, batch by batch. A model with a fixed batch gets the first cases again."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the float weights of a changed node are left without a reader
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    fixed = session.get_inputs()[0].shape[0]
    is_fixed = isinstance(fixed, int)
    batch, count = (fixed if is_fixed else _BATCH), min(map(len, inputs.values()))
    for at in range(0, count, batch):
        rows = np.arange(at, at + batch if is_fixed else min(at + batch, count)) % count
        made = session.run(None, {name: array[rows] for name, array in inputs.items()})
        yield [np.asarray(one) for one in made]


def _outputs(model: ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    return [np.concatenate(parts) for parts in zip(*_batches(model, inputs), strict=True)]


def _ranges(
    model: ModelProto, nodes: Iterable[NodeProto], inputs: Mapping[str, Array]
) -> dict[str, tuple[float, float]]:
    """The least and greatest value of each float tensor that a node reads, 0 among them."""
    import onnx  # noqa: PLC0415

    floats = _float_tensors(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    names = sorted({name for node in nodes for name in node.input if name in floats} - weights)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for name in names:
        for kind in ("ReduceMin", "ReduceMax"):
            made = f"{name}/{kind}"
            watched.graph.node.append(onnx.helper.make_node(kind, [name], [made], keepdims=0))
            watched.graph.output.append(
                onnx.helper.make_tensor_value_info(made, onnx.TensorProto.FLOAT, [])
            )
    found = dict.fromkeys(names, (0.0, 0.0))
    for values in _batches(watched, inputs) if names else ():
        for at, name in enumerate(names):
            low, high = found[name]
            found[name] = (min(low, float(values[2 * at])), max(high, float(values[2 * at + 1])))
    return found


def _float_tensors(model: ModelProto) -> set[str]:
    from onnx import TensorProto, shape_inference  # noqa: PLC0415

    graph = shape_inference.infer_shapes(model).graph
    return {
        info.name
        for info in (*graph.input, *graph.value_info)
        if info.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _alone(
    model: ModelProto, node: NodeProto, ranges: Mapping[str, tuple[float, float]], step: StaticInt8
) -> ModelProto:
    """The model with the weights and the activations of one node on the grid of 8 bits."""
    import onnx  # noqa: PLC0415

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    at = next(i for i, one in enumerate(graph.node) if one.name == node.name)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    before = list[Any]()
    for slot, name in enumerate(node.input):
        if name in weights and slot > 0 and weights[name].data_type == onnx.TensorProto.FLOAT:
            value = onnx.numpy_helper.to_array(weights[name])
            if value.ndim < 2:
                continue  # a bias, which stays exact in 32 bits
            axis = channel_axis(node, value.ndim) if step.per_channel else None
            _add(graph, f"{name}/8bit/{at}", on_grid(value, axis, levels_of(step)))
            graph.node[at].input[slot] = f"{name}/8bit/{at}"
        elif name in ranges:
            made = f"{name}/8bit/{at}/{slot}"
            before += _on_grid(graph, name, made, ranges[name], _LEVELS[step.activations])
            graph.node[at].input[slot] = made
    rest = list(graph.node)
    rest[at:at] = before
    del graph.node[:]
    graph.node.extend(rest)
    return changed


def _on_grid(
    graph: GraphProto, name: str, made: str, between: tuple[float, float], levels: int
) -> list[NodeProto]:
    """Nodes that round a tensor as integers of so many levels over the range would.

    Made of float operators: QuantizeLinear knows 16 bits from operator set 21 on only.
    """
    from onnx import helper  # noqa: PLC0415

    low, high = between
    scale = (high - low) / levels or 1.0
    zero = round(-low / scale)
    for part, value in (("inverse", 1 / scale), ("scale", scale), ("low", -zero),
                        ("high", levels - zero)):  # fmt: skip
        _add(graph, f"{made}/{part}", np.array(value, np.float32))
    chain = (("Mul", "inverse"), ("Round", ""), ("Max", "low"), ("Min", "high"), ("Mul", "scale"))
    nodes, last = list[Any](), name
    for number, (kind, part) in enumerate(chain):
        given = [last, f"{made}/{part}"] if part else [last]
        last = made if number == len(chain) - 1 else f"{made}/{number}"
        nodes.append(helper.make_node(kind, given, [last]))
    return nodes


def _add(graph: GraphProto, name: str, value: Array) -> None:
    from onnx import numpy_helper  # noqa: PLC0415

    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
