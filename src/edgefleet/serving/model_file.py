"""Reads model files without running any code in them.

A file comes from a publisher and may be damaged or hostile. Sizes are checked before allocation,
pickles are detected but not loaded, and every refusal is a typed error. Reading a model needs the
``onnx`` package, which is imported with the first model.
"""

import io
import itertools
import pickletools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.base.texts import shortened
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.serving.limits import (
    DETAIL_CHARS,
    MODEL_BYTES,
    MODEL_FIELDS,
    PICKLE_HEAD_BYTES,
    PICKLE_SURE_OPS,
    TENSORS,
)
from edgefleet.serving.runtime_versions import FormatVersions, oldest_runtime
from edgefleet.serving.tflite_file import EDGETPU_OPERATOR, float_specs, is_tflite, read_tflite

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto, ValueInfoProto

ONNX_TYPES: Final[Mapping[str, Datatype]] = {
    "BOOL": "BOOL", "UINT8": "UINT8", "UINT16": "UINT16", "UINT32": "UINT32", "UINT64": "UINT64",
    "INT8": "INT8", "INT16": "INT16", "INT32": "INT32", "INT64": "INT64",
    "FLOAT16": "FP16", "BFLOAT16": "BF16", "FLOAT": "FP32", "DOUBLE": "FP64", "STRING": "BYTES",
}  # fmt: skip
_RUNTIME_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})

# Fields of onnx.proto's ModelProto by number: 0 is a varint, 2 is length-delimited.
_IR_VERSION: Final = 1
_GRAPH: Final = 7
_OPSET_IMPORT: Final = 8
_MODEL_FIELDS: Final = {
    _IR_VERSION: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, _GRAPH: 2, _OPSET_IMPORT: 2,
    14: 2, 20: 2, 25: 2, 26: 2,
}  # fmt: skip
_FIXED_BYTES: Final = {1: 8, 5: 4}

_ZIP_HEAD: Final = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Inputs and outputs of a model. The first size of a shape is the batch.

    ``runtimes`` can load the file, the usual one first. ``versions`` are those of an ONNX file.
    ``raw`` are the inputs and outputs of a TFLite file with its quantised integers, which
    ``inputs`` and ``outputs`` name FP32: the runtime converts. None if there are none.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    versions: FormatVersions
    producer: str = ""
    runtimes: tuple[str, ...] = ("onnx", "tensorrt")
    raw: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None = None

    @property
    def min_runtime(self) -> str:
        """The oldest version of the runtime that loads the file. Empty if it is not known."""
        return oldest_runtime(self.versions) if "onnx" in self.runtimes else ""


def inspect_model(path: Path) -> ModelFacts:
    """Read the inputs and outputs of the model at ``path``.

    Raises PublisherError ``model_is_pickle``, ``model_truncated``, ``model_unsupported`` or
    ``not_a_model``; DeviceError ``runtime_missing`` without the ``onnx`` package.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MODEL_BYTES:
        raise PublisherError(
            "model_unsupported", f"The model has {size_bytes} bytes; {MODEL_BYTES} are allowed."
        )
    data = path.read_bytes()
    if is_tflite(data):
        return _tflite_facts(data)
    match _walk(data):
        case _Frame.FOREIGN if _is_pickle(data):
            raise PublisherError("model_is_pickle", "The file is a pickle, or an archive with one.")
        case _Frame.FOREIGN:
            raise PublisherError(
                "not_a_model", f"The file is not an ONNX or TFLite model: {_resembles(data)}."
            )
        case _Frame.CUT:
            raise PublisherError(
                "model_truncated", f"The model is truncated after {size_bytes} bytes."
            )
        case _Frame.WHOLE:
            return _facts(data)


class _Frame(Enum):
    """The result of reading a file's top-level fields."""

    WHOLE = auto()
    CUT = auto()  # a truncated model
    FOREIGN = auto()


def _walk(data: bytes) -> _Frame:
    """Read the top-level fields in protobuf's wire format.

    Every protobuf writer puts ``ir_version`` first, so only a file that begins with it can be CUT.
    A file truncated between two fields still parses; it is CUT if the graph or the operator set,
    which comes after the graph, is missing.
    """
    at, fields = 0, list[int]()
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire_type = tag >> 3, tag & 7
        foreign = wire_type != _MODEL_FIELDS.get(field, wire_type if fields else None)
        if at <= len(data) and (foreign or wire_type not in (0, 1, 2, 5)):
            return _Frame.FOREIGN
        value, at = _varint(data, at) if wire_type in (0, 2) else (0, at)
        at += value if wire_type == 2 else _FIXED_BYTES.get(wire_type, 0)
        fields.append(field)
        if len(fields) > MODEL_FIELDS:
            return _Frame.FOREIGN
    if at == len(data) and _GRAPH in fields and _OPSET_IMPORT in fields:
        return _Frame.WHOLE
    return _Frame.CUT if fields[:1] == [_IR_VERSION] else _Frame.FOREIGN


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and the position after it. Beyond the end if the number is truncated."""
    value = 0
    for count, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    return value, len(data) + 1


def _is_pickle(data: bytes) -> bool:
    """Whether ``data`` is a pickle of any protocol, or an archive with one (as of PyTorch).

    ``pickletools`` lists the operations of a pickle without executing them.
    """
    if data.startswith(_ZIP_HEAD):
        return b".pkl" in data
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    names: list[str] = []
    try:
        head = io.BytesIO(data[:PICKLE_HEAD_BYTES])
        names = [
            op.name for op, _, _ in itertools.islice(pickletools.genops(head), PICKLE_SURE_OPS)
        ]
    except ValueError:
        return False
    return len(names) == PICKLE_SURE_OPS or names[-1:] == ["STOP"]


def _resembles(data: bytes) -> str:
    """The format that the first bytes suggest, for messages."""
    if not data:
        return "it is empty"
    heads = {
        _ZIP_HEAD: "it is a zip archive", b"\x89HDF": "it is HDF5 (Keras)", b"GGUF": "it is GGUF",
        b"\x1f\x8b": "it is gzip", b"{": "it is JSON",
    }  # fmt: skip
    found = (text for head, text in heads.items() if data.startswith(head))
    return next(found, "its format is unknown")


def _tflite_facts(data: bytes) -> ModelFacts:
    found = read_tflite(data)
    compiled = EDGETPU_OPERATOR in found.custom_operators
    if others := set(found.custom_operators) - {EDGETPU_OPERATOR}:
        raise PublisherError(
            "model_unsupported", f"No runtime supports operator {min(others)} of the TFLite file."
        )
    return ModelFacts(
        float_specs(found.inputs, found.scales),
        float_specs(found.outputs, found.scales),
        FormatVersions(found.version, 0),
        found.description,
        ("edgetpu",) if compiled else ("litert", "edgetpu"),
        (found.inputs, found.outputs) if found.scales else None,
    )


def _facts(data: bytes) -> ModelFacts:
    try:
        import onnx  # noqa: PLC0415 - 31 MiB, needed for models only
        from google.protobuf.message import (  # type: ignore[import-untyped] # noqa: PLC0415 - with onnx
            DecodeError,
        )
    except ImportError as error:
        raise DeviceError(
            "runtime_missing",
            "Reading a model needs the onnx package.",
            hint="Run: pip install 'edgefleet[hub]'",
        ) from error
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise PublisherError(
            "not_a_model", "The model is damaged: protobuf cannot decode it."
        ) from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise PublisherError(
            "model_unsupported",
            "The model has weights in other files.",
            hint="Save the model as one file, with its weights inside.",
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    facts = ModelFacts(
        _specs("inputs", [info for info in model.graph.input if info.name not in weights]),
        _specs("outputs", list(model.graph.output)),
        _versions(model),
        f"{model.producer_name} {model.producer_version}".strip(),
    )
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:  # ValueError: text not in UTF-8
        reason = shortened(" ".join(str(error).split()), DETAIL_CHARS)
        code = "model_unsupported" if "No Op registered" in reason else "not_a_model"
        raise PublisherError(code, f"onnx.checker refuses the model: {reason}") from error
    return facts


def _versions(model: "ModelProto") -> FormatVersions:
    opsets = {one.domain or "ai.onnx": one.version for one in model.opset_import}
    return FormatVersions(model.ir_version, opsets.get("ai.onnx", 0), opsets.get("ai.onnx.ml", 0))


def _tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    """All constant tensors, nested ones too. Raises ``model_unsupported`` for unknown operators."""
    domains = _RUNTIME_DOMAINS | {function.domain for function in model.functions}
    graphs = [model.graph, *(info.algorithm for info in model.training_info)]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        node = nodes.pop()
        if node.domain not in domains:
            raise PublisherError(
                "model_unsupported", f"No runtime supports operator {node.domain}.{node.op_type}."
            )
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            graphs.extend(attribute.graphs)
            if attribute.HasField("g"):
                graphs.append(attribute.g)


def _specs(side: str, infos: "list[ValueInfoProto]") -> tuple[TensorSpec, ...]:
    if not 0 < len(infos) <= TENSORS:
        raise PublisherError(
            "model_unsupported",
            f"The model has {len(infos)} {side}; 1 to {TENSORS} are allowed.",
            field=side,
        )
    return tuple(_spec(f"{side}[{number}]", info) for number, info in enumerate(infos))


def _spec(field: str, info: "ValueInfoProto") -> TensorSpec:
    from onnx import TensorProto  # noqa: PLC0415 - the caller imported it

    kind = info.type.tensor_type
    names = {number: name for name, number in TensorProto.DataType.items()}
    datatype = ONNX_TYPES.get(names.get(kind.elem_type, ""))
    if info.type.WhichOneof("value") in ("sequence_type", "map_type"):
        raise PublisherError(
            "model_unsupported",
            f"Output {info.name!r} is a list of maps, not a tensor: the exporter added ZipMap.",
            field=field,
            hint="Export the scikit-learn model with convert_sklearn(model, "
            "options={'zipmap': False}, ...).",
        )
    if info.type.WhichOneof("value") != "tensor_type" or datatype is None:
        raise PublisherError(
            "model_unsupported", f"Tensor {info.name!r} has an unknown type.", field=field
        )
    if not kind.HasField("shape") or not kind.shape.dim:
        what = "no shape" if not kind.HasField("shape") else "a single value, without a batch"
        raise PublisherError(
            "model_unsupported",
            f"Tensor {info.name!r} has {what}.",
            field=field,
            hint="Export with a shape such as [-1, 64], the batch first: in PyTorch "
            f"dynamic_axes={{{info.name!r}: {{0: 'batch'}}}}. Export a setting such as a sampling "
            "rate as a constant.",
        )
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    if any(dim.HasField("dim_value") and dim.dim_value < 1 for dim in kind.shape.dim):
        raise PublisherError(
            "model_unsupported", f"Tensor {info.name!r} has shape {shape}.", field=field
        )
    return TensorSpec(name=info.name, datatype=datatype, shape=shape)
