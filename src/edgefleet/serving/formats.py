"""What a model file and a golden set are: told from their bytes, and nothing in them is run.

A file comes from a publisher, so all of it may be wrong or hostile. Sizes are bounded before
anything is allocated, pickles are named but never opened, and whatever is refused is refused as a
typed error. Reading needs the ``onnx`` package, which is imported when the first model is read.
"""

import io
import itertools
import math
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.serving.limits import (
    GOLDEN_ARRAYS,
    GOLDEN_BYTES,
    GOLDEN_CASES,
    GOLDEN_UNPACKED_BYTES,
    MODEL_BYTES,
    MODEL_FIELDS,
    PICKLE_HEAD_BYTES,
    PICKLE_SURE_OPS,
    RANK,
    TENSORS,
)

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto, ValueInfoProto

NPY_TYPES: Final[Mapping[Datatype, str]] = {
    "BOOL": "|b1", "UINT8": "|u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "|i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""How a golden set's arrays spell each datatype. Text (BYTES) has no place in a golden set."""

_ONNX_TYPES: Final[Mapping[str, Datatype]] = {
    "BOOL": "BOOL", "UINT8": "UINT8", "UINT16": "UINT16", "UINT32": "UINT32", "UINT64": "UINT64",
    "INT8": "INT8", "INT16": "INT16", "INT32": "INT32", "INT64": "INT64",
    "FLOAT16": "FP16", "FLOAT": "FP32", "DOUBLE": "FP64", "STRING": "BYTES",
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
_ZIP_ENTRY: Final = b"PK\x01\x02"
_ZIP_FAULTS: Final = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error,
    ValueError, OSError, EOFError, RuntimeError, OverflowError,
)  # fmt: skip
_NPY_HEADER: Final = re.compile(
    rb"\{'descr': '([<>|=][a-zA-Z]\d{0,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), \} *\n"
)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the model takes and gives. The first size of a shape is the batch."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """The arrays of a golden set by tensor name, cases first, and one label a case."""

    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64]


def inspect_model(path: Path) -> ModelFacts:
    """Read what the model at ``path`` takes and gives.

    Raises PublisherError ``model_is_pickle``, ``model_truncated``, ``model_unsupported`` or
    ``not_a_model``; DeviceError ``runtime_missing`` without the ``onnx`` package.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MODEL_BYTES:
        raise PublisherError("model_unsupported", f"The model has {size_bytes} bytes.")
    data = path.read_bytes()
    match _walk(data):
        case _Frame.FOREIGN if _is_pickle(data):
            raise PublisherError("model_is_pickle", "The file is a pickle, or an archive of one.")
        case _Frame.FOREIGN:
            raise PublisherError("not_a_model", f"The file is no ONNX model: {_resembles(data)}.")
        case _Frame.CUT:
            raise PublisherError("model_truncated", f"The model ends early, at {size_bytes} bytes.")
        case _Frame.WHOLE:
            return _facts(data)


def inspect_golden(
    path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> int:
    """How many cases the golden set at ``path`` has, once it fits these inputs and outputs.

    Raises PublisherError ``golden_mismatch``, its field naming the array at fault.
    """
    return len(read_golden(path, inputs, outputs).labels)


def read_golden(
    path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> GoldenSet:
    """Read the golden set at ``path``; see ``protocol.release.Golden`` for its arrays.

    Raises PublisherError ``golden_mismatch``, its field naming the array at fault.
    """
    arrays = _read_npz(path)
    labels = _take(arrays, "label")
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise _mismatch("label", "Labels are int64, one a case.")
    if not 0 < len(labels) <= GOLDEN_CASES:
        raise _mismatch("label", f"It has {len(labels)} cases; 1 to {GOLDEN_CASES} are allowed.")
    kinds = (("input", inputs), ("output", outputs))
    found = {
        kind: {spec.name: _fitting(arrays, f"{kind}.{spec.name}", spec, labels) for spec in specs}
        for kind, specs in kinds
    }
    known = {"label", *(f"{kind}.{spec.name}" for kind, specs in kinds for spec in specs)}
    if strangers := sorted(arrays.keys() - known):
        raise _mismatch(strangers[0], "The model has no such input or output.")
    return GoldenSet(found["input"], found["output"], labels)


class _Frame(Enum):
    """What the top level of a file says about it."""

    WHOLE = auto()
    CUT = auto()  # begins as a model, ends early
    FOREIGN = auto()


def _walk(data: bytes) -> _Frame:
    """Follow the top-level fields as protobuf's wire format frames them.

    Every protobuf writer puts ``ir_version`` first, so only a file that begins with it is called
    cut. A cut that falls between two fields leaves a message that parses: it is called cut as long
    as the graph or the operator set that follows it is missing.
    """
    at, seen = 0, list[int]()
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire_type = tag >> 3, tag & 7
        foreign = wire_type != _MODEL_FIELDS.get(field, wire_type if seen else None)
        if at <= len(data) and (foreign or wire_type not in (0, 1, 2, 5)):
            return _Frame.FOREIGN
        value, at = _varint(data, at) if wire_type in (0, 2) else (0, at)
        at += value if wire_type == 2 else _FIXED_BYTES.get(wire_type, 0)
        seen.append(field)
        if len(seen) > MODEL_FIELDS:
            return _Frame.FOREIGN
    if at == len(data) and _GRAPH in seen and _OPSET_IMPORT in seen:
        return _Frame.WHOLE
    return _Frame.CUT if seen[:1] == [_IR_VERSION] else _Frame.FOREIGN


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where the next begins; beyond the end when it does not end."""
    value = 0
    for count, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    return value, len(data) + 1


def _is_pickle(data: bytes) -> bool:
    """Whether this is a pickle of any protocol, or an archive (PyTorch's) that holds one.

    ``pickletools`` names the operations of a pickle without carrying out any of them.
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
    """What the first bytes look like, for a message that helps."""
    if not data:
        return "it is empty"
    if data[4:8] == b"TFL3":
        return "it is TensorFlow Lite"
    heads = {
        _ZIP_HEAD: "it is a zip archive", b"\x89HDF": "it is HDF5 (Keras)", b"GGUF": "it is GGUF",
        b"\x1f\x8b": "it is gzip", b"{": "it is JSON",
    }  # fmt: skip
    found = (text for head, text in heads.items() if data.startswith(head))
    return next(found, "its bytes are not those of ONNX")


def _facts(data: bytes) -> ModelFacts:
    try:
        import onnx  # noqa: PLC0415 - 31 MiB that only the reader of a model needs
        from google.protobuf.message import (  # type: ignore[import-untyped] # noqa: PLC0415 - with onnx
            DecodeError,
        )
    except ImportError as error:
        raise DeviceError(
            "runtime_missing", "Models are read with onnx.", hint="pip install 'edgefleet[hub]'."
        ) from error
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise PublisherError("not_a_model", "The model is damaged inside.") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise PublisherError(
            "model_unsupported",
            "Weights stand in other files.",
            hint="Save the model as one file, with its weights inside.",
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    facts = ModelFacts(
        _specs("inputs", [info for info in model.graph.input if info.name not in weights]),
        _specs("outputs", list(model.graph.output)),
    )
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:  # ValueError: text that is no UTF-8
        said = " ".join(str(error).split())[:300]
        code = "model_unsupported" if "No Op registered" in said else "not_a_model"
        raise PublisherError(code, f"ONNX's own check refuses it: {said}") from error
    return facts


def _tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    """Every constant tensor, however deep. Raises ``model_unsupported`` for foreign operators."""
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
                "model_unsupported", f"No runtime knows {node.domain}.{node.op_type}."
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
        raise PublisherError("model_unsupported", f"It has {len(infos)} {side}.", field=side)
    return tuple(_spec(f"{side}[{number}]", info) for number, info in enumerate(infos))


def _spec(field: str, info: "ValueInfoProto") -> TensorSpec:
    from onnx import TensorProto  # noqa: PLC0415 - was imported by the caller

    kind = info.type.tensor_type
    names = {number: name for name, number in TensorProto.DataType.items()}
    datatype = _ONNX_TYPES.get(names.get(kind.elem_type, ""))
    if info.type.WhichOneof("value") != "tensor_type" or datatype is None:
        raise PublisherError("model_unsupported", f"{info.name!r} has no known type.", field=field)
    if not kind.HasField("shape") or not kind.shape.dim:
        raise PublisherError(
            "model_unsupported",
            f"{info.name!r} has no shape with a batch first.",
            field=field,
            hint="Export with a shape such as [-1, 64], the batch first.",
        )
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    if any(dim.HasField("dim_value") and dim.dim_value < 1 for dim in kind.shape.dim):
        raise PublisherError("model_unsupported", f"{info.name!r} has shape {shape}.", field=field)
    return TensorSpec(name=info.name, datatype=datatype, shape=shape)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz. Declared sizes are added up before the first one is unpacked."""
    size_bytes = path.stat().st_size
    if size_bytes > GOLDEN_BYTES:
        raise _mismatch(None, f"The golden set has {size_bytes} bytes; {GOLDEN_BYTES} are allowed.")
    data = path.read_bytes()
    # Each entry of an archive carries this mark, so no more entries than this can be listed.
    if data.count(_ZIP_ENTRY) > GOLDEN_ARRAYS:
        raise _mismatch(None, f"The golden set has more than {GOLDEN_ARRAYS} arrays.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > GOLDEN_UNPACKED_BYTES:
                raise _mismatch(None, f"It unpacks to more than {GOLDEN_UNPACKED_BYTES} bytes.")
            arrays: dict[str, NDArray[Any]] = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in arrays or name == entry.filename:
                    raise _mismatch(name, "An .npz holds .npy files, each once.")
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _mismatch(name, "It is packed in another way than NumPy does.")
                with archive.open(entry) as file:
                    # A bound on the read keeps what is unpacked below what was declared.
                    arrays[name] = _read_npy(name, file.read(entry.file_size))
            return arrays
    except _ZIP_FAULTS as error:
        raise _mismatch(None, f"The golden set is no sound .npz file: {error}.") from error


def _read_npy(name: str, data: bytes) -> NDArray[Any]:
    """One array, from the only header that NumPy writes; nothing is evaluated or unpickled.

    Format: numpy.lib.format, versions 1 and 2.
    """
    header_at = {b"\x93NUMPY\x01\x00": 10, b"\x93NUMPY\x02\x00": 12}.get(data[:8], 0)
    header = _NPY_HEADER.match(data, header_at) if header_at else None
    if header is None:
        raise _mismatch(name, "The array has no plain NumPy header.")
    descr, order, sizes = (part.decode() for part in header.groups())
    if descr not in NPY_TYPES.values():
        raise _mismatch(name, f"Arrays of {descr!r} are not allowed.")
    shape = tuple(int(size) for size in sizes.replace(",", " ").split())
    dtype = np.dtype(descr)
    if len(shape) > RANK or math.prod(shape) * dtype.itemsize != len(data) - header.end():
        raise _mismatch(name, f"Its size is not that of shape {shape}.")
    flat = np.frombuffer(data, dtype, offset=header.end())
    return flat.reshape(shape, order="F" if order == "True" else "C")


def _take(arrays: Mapping[str, NDArray[Any]], key: str) -> NDArray[Any]:
    if key not in arrays:
        raise _mismatch(key, f"The golden set has no array {key!r}.")
    return arrays[key]


def _fitting(
    arrays: Mapping[str, NDArray[Any]], key: str, spec: TensorSpec, labels: NDArray[np.int64]
) -> NDArray[Any]:
    array = _take(arrays, key)
    if array.dtype != np.dtype(NPY_TYPES.get(spec.datatype, "V1")):
        raise _mismatch(key, f"It is {array.dtype}, the model's is {spec.datatype}.")
    expected = (len(labels), *spec.shape[1:])
    if array.ndim != len(expected) or any(
        size not in (want, -1) and want != -1
        for size, want in zip(array.shape, expected, strict=True)
    ):
        raise _mismatch(key, f"Its shape is {array.shape}, the model's is {spec.shape}.")
    return array


def _mismatch(field: str | None, message: str) -> PublisherError:
    return PublisherError("golden_mismatch", message, field=field)
