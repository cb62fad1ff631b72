"""The graph of an ONNX file, with the shapes that ``onnx.shape_inference`` finds.

Constants of more than ``_FOLDED`` elements are left out for the inference, as inputs of their
shape: the inference needs the values of small ones only (of a Reshape), and copies the model.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.inspection.graph import ModelGraph, Node, Tensor
from edgefleet.serving.model_file import ONNX_TYPES

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_FOLDED: Final = 1_024
_NO_SHAPE: Final = Tensor("FP32", 32, None)
_BITS: Final[Mapping[str, int]] = {
    "FLOAT": 32, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "INT64": 64,
    "BOOL": 8, "FLOAT16": 16, "DOUBLE": 64, "UINT32": 32, "UINT64": 64, "BFLOAT16": 16,
    "UINT4": 4, "INT4": 4, "COMPLEX64": 64, "COMPLEX128": 128,
}  # fmt: skip


def read_onnx(path: Path, batch: int) -> ModelGraph:
    """The graph of a file that ``inspect_model`` has accepted, with an open batch set to ``batch``.

    Raises PublisherError ``not_a_model`` if the shapes of the file contradict each other.
    """
    import onnx  # noqa: PLC0415 - 31 MiB, needed for models only

    model = onnx.load_model(str(path), load_external_data=False)
    weights = {one.name: _constant(one) for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    fixed = [size for one in inputs if (size := _first_size(one)) > 0]
    batch = fixed[0] if fixed else batch
    _prepare(model, inputs, batch)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise PublisherError(
            "not_a_model", f"The shapes of the model contradict each other: {error}."
        ) from error
    tensors = {
        one.name: _activation(one)
        for one in (*inferred.value_info, *inferred.output, *inferred.input)
    }
    nodes = tuple(_nodes(model.graph, tensors))
    tensors |= weights
    for node in nodes:
        given = tensors.get(node.inputs[0]) if node.inputs else None
        if node.operator == "DequantizeLinear" and given is not None and given.constant:
            for name in node.outputs:
                tensors[name] = replace(tensors.get(name, _NO_SHAPE), fused=True)
    return ModelGraph(
        batch,
        nodes,
        tensors,
        tuple(one.name for one in inputs),
        tuple(one.name for one in model.graph.output),
        tuple(_nested(model.graph.node)),
    )


def _prepare(model: "ModelProto", inputs: "list[ValueInfoProto]", batch: int) -> None:
    """Set the batch, forget inner shapes, and take out large constants."""
    import onnx  # noqa: PLC0415 - the caller imported it

    names = {one.name for one in inputs}
    for one in inputs:
        first = one.type.tensor_type.shape.dim[:1]
        for size in first:
            if not size.HasField("dim_value"):
                size.dim_value = batch
    del model.graph.value_info[:]
    for info in model.graph.output:  # a symbol for the batch would stay beside the number
        for size in info.type.tensor_type.shape.dim:
            size.ClearField("dim_param")
    kept = []
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= _FOLDED:
            kept.append(tensor)
        elif tensor.name not in names:
            made = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(made)
            names.add(tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _first_size(info: "ValueInfoProto") -> int:
    sizes = info.type.tensor_type.shape.dim
    return sizes[0].dim_value if sizes and sizes[0].HasField("dim_value") else -1


def _nodes(graph: "GraphProto", tensors: dict[str, Tensor]) -> Iterator[Node]:
    """The nodes of a graph. Those of type Constant become constants in ``tensors``."""
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = _constant(attribute.t)
        inside = {name for name in _captured(node) if name}
        yield Node(
            f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type,
            tuple(name for name in node.input if name) + tuple(sorted(inside)),
            tuple(name for name in node.output if name),
        )


def _graphs(node: "NodeProto") -> "Iterator[GraphProto]":
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _captured(node: "NodeProto") -> Iterator[str]:
    """The tensors that graphs inside of ``node`` read from outside."""
    for graph in _graphs(node):
        for inner in graph.node:
            yield from inner.input
            yield from _captured(inner)


def _nested(nodes: "Iterable[NodeProto]") -> Iterator[str]:
    for node in nodes:
        for graph in _graphs(node):
            yield from (inner.op_type for inner in graph.node)
            yield from _nested(graph.node)


def _constant(tensor: "TensorProto") -> Tensor:
    name = _type_name(tensor.data_type)
    return Tensor(ONNX_TYPES.get(name, name), _BITS.get(name, 0), tuple(tensor.dims), constant=True)


def _activation(info: "ValueInfoProto") -> Tensor:
    kind = info.type.tensor_type
    name = _type_name(kind.elem_type)
    datatype, bits = ONNX_TYPES.get(name, name), _BITS.get(name, 0)
    if not kind.HasField("shape"):
        return Tensor(datatype, bits, None)
    sizes = [one.dim_value if one.HasField("dim_value") else -1 for one in kind.shape.dim]
    known = tuple(max(1, size) for size in sizes)
    return Tensor(datatype, bits, known, open_sizes=sizes.count(-1))


def _type_name(number: int) -> str:
    from onnx import TensorProto  # noqa: PLC0415 - the caller imported it

    names: dict[int, str] = {value: name for name, value in TensorProto.DataType.items()}
    return names.get(number, "UNDEFINED")
