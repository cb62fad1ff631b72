"""TFLite files of a few bytes, written with the schema that the runtime's package has."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgefleet.protocol.release import Artifact, TensorSpec, Variant

FEATURES, CLASSES = 10, 4
_TYPES: dict[str, int] = {"FP32": 0, "INT32": 2, "UINT8": 3, "INT8": 9}
_DTYPES = {"FP32": np.float32, "INT8": np.int8, "UINT8": np.uint8}
WEIGHTS = np.random.default_rng(7).integers(-90, 90, (CLASSES, FEATURES)).astype(np.int8)


@dataclass(frozen=True)
class TinyTflite:
    path: Path
    variant: Variant


def classifier(
    path: Path,
    *,
    inside: str = "INT8",
    outside: str = "INT8",
    manifest: str = "",
    batch: int = -1,
    runtime: str = "litert",
    custom: str = "",
) -> TinyTflite:
    """``y = w x`` with integers ``inside``. With FP32 ``outside``, QUANTIZE and DEQUANTIZE are
    operators of the file. ``manifest`` is the datatype that the variant names."""
    model = schema.ModelT()
    model.version, model.description = 3, b"tiny"
    model.buffers = [schema.BufferT() for _ in range(3)]
    for place, data in ((1, WEIGHTS.tobytes()), (2, np.zeros(CLASSES, np.int32).tobytes())):
        model.buffers[place].data = np.frombuffer(data, np.uint8)
    graph = schema.SubGraphT()
    graph.name = b"main"
    sizes = (1, FEATURES), (1, CLASSES)
    zero = (3, 130) if inside == "UINT8" else (-3, 5)
    graph.tensors = [
        _tensor("x", sizes[0], inside, batch, 0.05, zero[0]),
        _tensor("w", WEIGHTS.shape, "INT8", 1, 0.02, 0, buffer=1),
        _tensor("b", (CLASSES,), "INT32", 1, 0.001, 0, buffer=2),
        _tensor("y", sizes[1], inside, batch, 0.11, zero[1]),
    ]
    dense = schema.BuiltinOperator.FULLY_CONNECTED
    graph.operators = [_operator(model, dense, [0, 1, 2], [3])]
    graph.operators[0].builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    graph.operators[0].builtinOptions = schema.FullyConnectedOptionsT()
    graph.inputs, graph.outputs = [0], [3]
    if outside == "FP32":
        graph.tensors[0].name, graph.tensors[3].name = b"x_inside", b"y_inside"
        graph.tensors += [
            _tensor("x", sizes[0], "FP32", batch),
            _tensor("y", sizes[1], "FP32", batch),
        ]
        before = _operator(model, schema.BuiltinOperator.QUANTIZE, [4], [0])
        after = _operator(model, schema.BuiltinOperator.DEQUANTIZE, [3], [5])
        graph.operators = [before, *graph.operators, after]
        graph.inputs, graph.outputs = [4], [5]
    if custom:
        model.operatorCodes[0].customCode = custom.encode()
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    data = bytes(builder.Output())
    path.write_bytes(data)
    named: Any = manifest or outside
    variant = Variant(
        profile="coral_tpu",
        runtime=runtime,
        precision="int8",
        artifact=Artifact(sha256=sha256(data).hexdigest(), size_bytes=len(data)),
        inputs=(TensorSpec(name="x", datatype=named, shape=(batch, FEATURES)),),
        outputs=(TensorSpec(name="y", datatype=named, shape=(batch, CLASSES)),),
        max_batch=4 if batch == -1 else batch,
        memory_limit_mib=256,
    )
    return TinyTflite(path, variant)


def inputs(count: int, datatype: str = "INT8") -> NDArray[Any]:
    drawn = np.random.default_rng(count)
    if datatype == "FP32":
        return drawn.normal(0, 3, (count, FEATURES)).astype(np.float32)
    kind = _DTYPES[datatype]
    bounds = np.iinfo(kind)
    return drawn.integers(bounds.min, bounds.max, (count, FEATURES)).astype(kind)


def interpreted(path: Path, given: NDArray[Any]) -> NDArray[Any]:
    """The answer of the interpreter itself."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    at = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(at, given.shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(at, given)
    interpreter.invoke()
    made: NDArray[Any] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return made


def scales(path: Path) -> dict[str, dict[str, Any]]:
    """The datatype, scale and zero point of each input and output, of the interpreter itself."""
    interpreter = Interpreter(model_path=str(path))
    names = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
    return {
        one["name"]: {
            "datatype": names[np.dtype(one["dtype"])],
            "scale": one["quantization"][0],
            "zero_point": one["quantization"][1],
        }
        for one in (*interpreter.get_input_details(), *interpreter.get_output_details())
    }


def _tensor(
    name: str,
    shape: tuple[int, ...],
    datatype: str,
    batch: int,
    scale: float = 0,
    zero: int = 0,
    buffer: int = 0,
) -> Any:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = (
        name.encode(),
        list(shape),
        _TYPES[datatype],
        buffer,
    )
    if batch == -1 and not buffer:
        made.shapeSignature = [-1, *shape[1:]]
    elif not buffer:
        made.shape = [batch, *shape[1:]]
    if scale:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale], [zero]
    return made


def _operator(model: Any, code: int, taken: list[int], made: list[int]) -> Any:
    kind = schema.OperatorCodeT()
    kind.deprecatedBuiltinCode = kind.builtinCode = code
    kind.version = 4 if code == schema.BuiltinOperator.FULLY_CONNECTED else 1
    model.operatorCodes = [*(model.operatorCodes or []), kind]
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = taken, made
    return operator
