"""A float TFLite file as the quantizer needs it: with a signature, and its weights in FP32.

The schema is the one that the package of LiteRT has. A file without a signature (older converters
wrote none) gets one with the names of its tensors. Weights in FP16 behind a DEQUANTIZE operator, as
many published files have them, become constants in FP32: the quantizer would leave them alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.serving.tflite_file import IDENTIFIER, is_tflite

_SIGNATURE: Final = "serving_default"
_FLOAT32, _FLOAT16 = 0, 1
_INTEGERS: Final = frozenset({3, 7, 9, 17})  # UINT8, INT16, INT8, INT4


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of the first graph. ``name`` is that of its first output, which is unique."""

    name: str
    kind: str  # of the schema, such as CONV_2D


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A float TFLite file that is ready for the quantizer.

    ``inputs`` has the name of the signature's input for the name of each input tensor.
    ``ends`` are the names of the graph's inputs and outputs, with their sizes as -1 where open.
    """

    data: bytes
    signature: str
    inputs: Mapping[str, str]
    operators: tuple[Operator, ...]
    ends: tuple[tuple[str, tuple[int, ...]], ...]


def float_model(data: bytes) -> FloatModel:
    """Read a float file. Raises PublisherError ``step_failed`` if it is no TFLite or quantised."""
    if not is_tflite(data):
        raise PublisherError("step_failed", "The file is not TFLite.", field="model")
    try:
        model, outside = read_model(data)
        graph = model.subgraphs[0]
        folded = _fold_half(model, graph)
        _refuse_quantised(graph)
        signed = next((one for one in model.signatureDefs or () if not one.subgraphIndex), None)
        made = signed or _sign(model, graph)
        if outside or folded or not signed:
            data = packed(model)
        names = [tensor_text(graph.tensors[one.tensorIndex].name) for one in made.inputs]
        keys = [tensor_text(one.name) for one in made.inputs]
        return FloatModel(
            data,
            tensor_text(made.signatureKey),
            MappingProxyType(dict(zip(names, keys, strict=True))),
            _operators(model),
            tuple(_end(graph.tensors[place]) for place in (*graph.inputs, *graph.outputs)),
        )
    except (IndexError, TypeError, AttributeError, ValueError) as error:  # of the generated reader
        raise PublisherError(
            "step_failed", f"The TFLite file is damaged: {error}.", field="model"
        ) from error


def read_model(data: bytes) -> tuple[Any, bool]:
    """The file as objects of the schema, and whether a constant was outside of the FlatBuffer.

    The quantizer writes the constants of larger models behind the FlatBuffer, with an offset and a
    size in the schema's Buffer. Here all are inside.
    """
    model = schema().ModelT.InitFromPackedBuf(data, 0)
    outside = [one for one in model.buffers if one.offset > 1]
    for one in outside:
        one.data = np.frombuffer(data[one.offset : one.offset + one.size], np.uint8)
        one.offset = one.size = 0
    return model, bool(outside)


def finished(data: bytes, source: FloatModel) -> bytes:
    """The quantizer's file with the names and open sizes of ``source``, and its constants inside.

    The quantizer gives an input or output that it converts another name and the sizes of one case.
    Constants behind the FlatBuffer are empty to the compiler of the Edge TPU and to runtimes of
    before 2023, which know no offsets.
    """
    model, changed = read_model(data)
    graph = model.subgraphs[0]
    for place, (name, sizes) in zip((*graph.inputs, *graph.outputs), source.ends, strict=True):
        tensor = graph.tensors[place]
        if _end(tensor) == (name, sizes):
            continue
        for other in graph.tensors:
            if tensor_text(other.name) == name:
                other.name = f"{name}_quantised"
        tensor.name, changed = name, True
        if -1 in sizes:
            tensor.shapeSignature = list(sizes)
    return packed(model) if changed else data


def fixed(data: bytes) -> bytes:
    """The file with a batch of one instead of an open one. Raises PublisherError ``step_failed``.

    Sizes inside are those of one case already, as converters write them.
    """
    model, _ = read_model(data)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            sizes = () if tensor.shapeSignature is None else tuple(map(int, tensor.shapeSignature))
            if -1 in sizes[1:] or (-1 in sizes and int(tensor.shape[0]) != 1):
                raise PublisherError(
                    "step_failed",
                    f"Tensor {tensor_text(tensor.name)!r} has the open sizes {list(sizes)}: only "
                    "an open batch can be fixed.",
                    field="fix_batch",
                    hint="Convert the model with a batch of one.",
                )
            tensor.shapeSignature = None
    return packed(model)


def _end(tensor: Any) -> tuple[str, tuple[int, ...]]:
    sizes = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return tensor_text(tensor.name), tuple(map(int, sizes))


def left_float(data: bytes) -> tuple[Operator, ...]:
    """The operators of a file that compute in float: their first output is one.

    QUANTIZE and DEQUANTIZE, which convert, are left out.
    """
    model, _ = read_model(data)
    graph = model.subgraphs[0]
    return tuple(
        operator
        for operator, made in zip(_operators(model), graph.operators, strict=True)
        if graph.tensors[made.outputs[0]].type in (_FLOAT32, _FLOAT16)
        and operator.kind not in ("QUANTIZE", "DEQUANTIZE")
    )


def _refuse_quantised(graph: Any) -> None:
    for tensor in graph.tensors:
        found = tensor.quantization
        if tensor.type in _INTEGERS and found is not None and found.scale is not None:
            raise PublisherError(
                "step_failed",
                f"Tensor {tensor_text(tensor.name)!r} is an integer with a scale: the file is "
                "quantised already.",
                field="model",
                hint="Give the float model that this file was made from.",
            )


def _sign(model: Any, graph: Any) -> Any:
    made = schema().SignatureDefT()
    made.signatureKey, made.subgraphIndex = _SIGNATURE, 0
    made.inputs = [_mapped(graph, place) for place in graph.inputs]
    made.outputs = [_mapped(graph, place) for place in graph.outputs]
    model.signatureDefs = [*(model.signatureDefs or ()), made]
    return made


def _mapped(graph: Any, place: int) -> Any:
    made = schema().TensorMapT()
    made.name, made.tensorIndex = graph.tensors[place].name, int(place)
    return made


def _fold_half(model: Any, graph: Any) -> bool:
    """Constants in FP16 behind a DEQUANTIZE become constants in FP32. Whether there were any."""
    kinds = operator_kinds(model)
    kept, gone = [], set[int]()
    for operator in graph.operators:
        halves = _halves(model, graph, operator)
        if kinds[operator.opcodeIndex] != "DEQUANTIZE" or halves is None:
            kept.append(operator)
            continue
        wide = np.frombuffer(halves, np.float16).astype(np.float32)
        buffer = schema().BufferT()
        buffer.data = np.frombuffer(wide.tobytes(), np.uint8)
        model.buffers.append(buffer)
        graph.tensors[operator.outputs[0]].buffer = len(model.buffers) - 1
        gone.add(int(operator.inputs[0]))
    graph.operators = kept
    _remove(model, graph, gone)
    return bool(gone)


def _halves(model: Any, graph: Any, operator: Any) -> bytes | None:
    """The bytes of the first input, if it is a constant in FP16."""
    source = graph.tensors[operator.inputs[0]] if len(operator.inputs) else None
    if source is None or source.type != _FLOAT16 or model.buffers[source.buffer].data is None:
        return None
    return bytes(model.buffers[source.buffer].data)


def _remove(model: Any, graph: Any, gone: set[int]) -> None:
    """Remove unused constants: the quantizer reads all tensors, and fails on such."""
    for place in gone:
        model.buffers[graph.tensors[place].buffer].data = None
    left = [place for place in range(len(graph.tensors)) if place not in gone]
    new = {old: place for place, old in enumerate(left)} | {-1: -1}
    graph.tensors = [graph.tensors[place] for place in left]
    graph.inputs = [new[int(one)] for one in graph.inputs]
    graph.outputs = [new[int(one)] for one in graph.outputs]
    for operator in graph.operators:
        operator.inputs = [new[int(one)] for one in operator.inputs]
        operator.outputs = [new[int(one)] for one in operator.outputs]
    for signature in model.signatureDefs or ():
        if not signature.subgraphIndex:
            for one in (*signature.inputs, *signature.outputs):
                one.tensorIndex = new[int(one.tensorIndex)]


def _operators(model: Any) -> tuple[Operator, ...]:
    graph, kinds = model.subgraphs[0], operator_kinds(model)
    return tuple(
        Operator(tensor_text(graph.tensors[one.outputs[0]].name), kinds[one.opcodeIndex])
        for one in graph.operators
    )


def operator_kinds(model: Any) -> list[str]:
    """The names of the file's operator codes, such as CONV_2D."""
    names = _names()
    return [
        names.get(max(one.builtinCode, one.deprecatedBuiltinCode), "CUSTOM")
        for one in model.operatorCodes
    ]


@cache
def _names() -> dict[int, str]:
    codes = schema().BuiltinOperator
    return {number: name for name, number in vars(codes).items() if isinstance(number, int)}


def packed(model: Any) -> bytes:
    """The bytes of a model."""
    import flatbuffers  # type: ignore[import-untyped] # noqa: PLC0415 - with the runtime

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def schema() -> Any:
    """The generated classes of the TFLite schema. Raises DeviceError ``runtime_missing``."""
    try:
        from ai_edge_litert import schema_py_generated  # noqa: PLC0415 - 0.2 s, for this only
    except ImportError as error:
        raise DeviceError(
            "runtime_missing",
            "ai-edge-litert is not installed.",
            hint="Run: pip install 'edgefleet[optimize-tflite]'",
        ) from error
    return schema_py_generated


def tensor_text(name: Any) -> str:
    """A name of the file as text."""
    return name.decode() if isinstance(name, bytes) else str(name or "")
