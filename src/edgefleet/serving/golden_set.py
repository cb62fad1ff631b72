"""Reads golden sets, .npz files of a publisher, without running any code in them.

Sizes are checked before allocation, nothing is unpickled, and every refusal is a typed error.
"""

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.base.errors import PublisherError
from edgefleet.protocol.comparisons import (
    Comparison,
    MeanIou,
    MeanPrecision,
    Top1,
    compared_outputs,
)
from edgefleet.protocol.release import Datatype, TensorSpec
from edgefleet.serving.bf16 import rounded, widened
from edgefleet.serving.limits import (
    GOLDEN_ARRAYS,
    GOLDEN_BYTES,
    GOLDEN_CASES,
    GOLDEN_UNPACKED_BYTES,
    NPY_HEAD_BYTES,
    RANK,
)

NPY_TYPES: Final[Mapping[Datatype, str]] = {
    "BOOL": "|b1", "UINT8": "|u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "|i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "BF16": "<f4", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""NumPy's name of each datatype, for the arrays of a golden set: BF16 is FP32.

BYTES is ``<U`` and a size.
"""

_TEXT: Final = re.compile(r"<U[1-9]\d{0,5}")

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
class GoldenSet:
    """The arrays of a golden set by tensor name, cases first.

    ``inputs`` are as the model gets them, BF16 in ``bf16.BF16``; the others are numbers.
    ``outputs`` are the reference outputs that are compared, or all. ``truth`` and ``labels`` are
    empty and None if the set has none.
    """

    cases: int
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    truth: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | None


def read_golden(
    path: Path,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    comparison: Comparison | None = None,
) -> GoldenSet:
    """Read the golden set at ``path`` for a model and a comparison.

    ``protocol.release.Golden`` describes its arrays. Without a comparison, all reference outputs
    and labels are required. Raises PublisherError ``golden_mismatch``; its field is the array that
    does not match the model.
    """
    arrays = read_npz(path)
    labels = _labels(arrays, required=isinstance(comparison, Top1 | None))
    counted = "label" if labels is not None else f"input.{inputs[0].name}"
    cases = len(np.atleast_1d(_array(arrays, counted)))
    if not 0 < cases <= GOLDEN_CASES:
        raise _mismatch(
            counted, f"The golden set has {cases} cases; 1 to {GOLDEN_CASES} are allowed."
        )
    needed = {one.name for one in outputs} if comparison is None else compared_outputs(comparison)
    if missing := [name for name in needed if name not in {one.name for one in outputs}]:
        raise _mismatch(f"output.{missing[0]}", f"The model has no output {missing[0]!r}.")
    found = GoldenSet(
        cases=cases,
        inputs={one.name: _input(arrays, f"input.{one.name}", one, cases) for one in inputs},
        outputs={
            one.name: _fitting(arrays, f"output.{one.name}", one, cases)
            for one in outputs
            if one.name in needed or f"output.{one.name}" in arrays
        },
        truth={
            one.name: _fitting(arrays, f"truth.{one.name}", _truth_spec(one, comparison), cases)
            for one in outputs
            if one.name in needed and f"truth.{one.name}" in arrays
        },
        labels=labels,
    )
    known = {
        "label",
        *(f"input.{name}" for name in found.inputs),
        *(f"output.{name}" for name in found.outputs),
        *(f"truth.{name}" for name in found.truth),
    }
    if unknown := sorted(arrays.keys() - known):
        raise _mismatch(unknown[0], "The model has no such input or output, or it is not compared.")
    return found


def _labels(arrays: Mapping[str, NDArray[Any]], *, required: bool) -> NDArray[np.int64] | None:
    if not required and "label" not in arrays:
        return None
    labels = _array(arrays, "label")
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise _mismatch(
            "label",
            f"Labels are {labels.dtype} with {labels.ndim} axes; they must be int64 with one.",
        )
    return labels


def _truth_spec(spec: TensorSpec, comparison: Comparison | None) -> TensorSpec:
    """The tensor of the truth: as the output, but class numbers and any number of boxes."""
    match comparison:
        case MeanIou(class_axis=axis):
            shape = tuple(size for at, size in enumerate(spec.shape) if at != axis or axis < 0)
            return TensorSpec(name=spec.name, datatype="INT64", shape=shape)
        case MeanPrecision():
            shape = (spec.shape[0], -1, *spec.shape[2:])
            return TensorSpec(name=spec.name, datatype=spec.datatype, shape=shape)
        case _:
            return spec


def read_npz(
    path: Path, *, most_bytes: int = GOLDEN_BYTES, unpacked_bytes: int = GOLDEN_UNPACKED_BYTES
) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file. The declared sizes are checked before unpacking."""
    size_bytes = path.stat().st_size
    if size_bytes > most_bytes:
        raise _mismatch(None, f"The golden set has {size_bytes} bytes; {most_bytes} are allowed.")
    data = path.read_bytes()
    # Each entry has this mark, so the archive has at most as many entries.
    if data.count(_ZIP_ENTRY) > GOLDEN_ARRAYS:
        raise _mismatch(None, f"The golden set has more than {GOLDEN_ARRAYS} arrays.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > unpacked_bytes:
                raise _mismatch(
                    None, f"The golden set unpacks to more than {unpacked_bytes} bytes."
                )
            arrays: dict[str, NDArray[Any]] = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in arrays or name == entry.filename:
                    raise _mismatch(
                        name, "An .npz file may contain .npy files only, each name once."
                    )
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _mismatch(
                        name, "The array is compressed in a way that NumPy does not use."
                    )
                with archive.open(entry) as file:
                    # Read no more than the declared size.
                    arrays[name] = _read_npy(name, file.read(entry.file_size))
            return arrays
    except _ZIP_FAULTS as error:
        raise _mismatch(None, f"The golden set is not a valid .npz file: {error}.") from error


def _read_npy(name: str, data: bytes) -> NDArray[Any]:
    """One array in the format numpy.lib.format, version 1 or 2.

    Only headers as NumPy writes them are accepted. Nothing is evaluated or unpickled.
    """
    header_at = {b"\x93NUMPY\x01\x00": 10, b"\x93NUMPY\x02\x00": 12}.get(data[:8], 0)
    header = _NPY_HEADER.match(data, header_at) if header_at else None
    if header is None:
        raise _mismatch(name, "The array has no NumPy header of version 1 or 2.")
    descr, order, sizes = (part.decode() for part in header.groups())
    if descr not in NPY_TYPES.values() and not _TEXT.fullmatch(descr):
        raise _mismatch(name, f"Arrays of type {descr!r} are not allowed.")
    shape = tuple(int(size) for size in sizes.replace(",", " ").split())
    dtype = np.dtype(descr)
    if len(shape) > RANK or math.prod(shape) * dtype.itemsize != len(data) - header.end():
        raise _mismatch(
            name, f"The array has {len(data) - header.end()} bytes, which do not fit shape {shape}."
        )
    flat = np.frombuffer(data, dtype, offset=header.end())
    return flat.reshape(shape, order="F" if order == "True" else "C")


def first_cases(path: Path, inputs: tuple[TensorSpec, ...], count: int) -> dict[str, NDArray[Any]]:
    """The first ``count`` cases of each input, or as many as there are.

    No more than these is unpacked. Raises PublisherError ``golden_mismatch``.
    """
    try:
        if path.stat().st_size > GOLDEN_BYTES:
            raise _mismatch(None, f"The golden set has more than {GOLDEN_BYTES} bytes.")
        with zipfile.ZipFile(path) as archive:
            return {
                one.name: _first_rows(archive, f"input.{one.name}", one, count) for one in inputs
            }
    except KeyError as error:
        raise _mismatch(None, f"The golden set lacks an array: {error}.") from error
    except _ZIP_FAULTS as error:
        raise _mismatch(None, f"The golden set is not a valid .npz file: {error}.") from error


def _first_rows(archive: zipfile.ZipFile, name: str, spec: TensorSpec, count: int) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        head = file.read(NPY_HEAD_BYTES)
        header_at = {b"\x93NUMPY\x01\x00": 10, b"\x93NUMPY\x02\x00": 12}.get(head[:8], 0)
        header = _NPY_HEADER.match(head, header_at) if header_at else None
        if header is None:
            raise _mismatch(name, "The array has no NumPy header of version 1 or 2.")
        descr, order, sizes = (part.decode() for part in header.groups())
        shape = tuple(int(size) for size in sizes.replace(",", " ").split())
        if (descr not in NPY_TYPES.values() and not _TEXT.fullmatch(descr)) or order == "True":
            raise _mismatch(name, f"Arrays of type {descr!r} are not read here.")
        dtype = np.dtype(descr)
        rows = min(count, shape[0]) if shape else 0
        needed = rows * math.prod(shape[1:]) * dtype.itemsize
        if not rows > 0 or needed > GOLDEN_UNPACKED_BYTES:
            raise _mismatch(name, f"The array has shape {shape}.")
        data = head[header.end() :]
        data += file.read(max(0, needed - len(data)))
    array = np.frombuffer(data[:needed], dtype).reshape(rows, *shape[1:])
    found = _input({name: array}, name, spec, rows)
    return found.astype(object) if spec.datatype == "BYTES" else found


def as_input(array: NDArray[Any], datatype: Datatype) -> NDArray[Any]:
    """An array of a golden set as the model gets it."""
    return rounded(array) if datatype == "BF16" else array


def _input(
    arrays: Mapping[str, NDArray[Any]], key: str, spec: TensorSpec, cases: int
) -> NDArray[Any]:
    """See ``as_input``. A value that is not exact in the datatype is refused."""
    array = _fitting(arrays, key, spec, cases)
    found = as_input(array, spec.datatype)
    if spec.datatype == "BF16" and not np.array_equal(widened(found), array, equal_nan=True):
        raise _mismatch(key, "A value is not exact in BF16: round the inputs before saving.")
    return found


def _array(arrays: Mapping[str, NDArray[Any]], key: str) -> NDArray[Any]:
    if key not in arrays:
        raise _mismatch(key, f"The golden set has no array {key!r}.")
    return arrays[key]


def _fitting(
    arrays: Mapping[str, NDArray[Any]], key: str, spec: TensorSpec, cases: int
) -> NDArray[Any]:
    array = _array(arrays, key)
    is_text = spec.datatype == "BYTES" and array.dtype.kind == "U"
    if not is_text and array.dtype != np.dtype(NPY_TYPES.get(spec.datatype, "V1")):
        raise _mismatch(
            key, f"The array is {array.dtype}, the tensor of the model is {spec.datatype}."
        )
    expected = (cases, *spec.shape[1:])
    if array.ndim != len(expected) or any(
        size not in (want, -1) and want != -1
        for size, want in zip(array.shape, expected, strict=True)
    ):
        raise _mismatch(
            key, f"The array has shape {array.shape}, the tensor of the model {spec.shape}."
        )
    return array


def _mismatch(field: str | None, message: str) -> PublisherError:
    return PublisherError("golden_mismatch", message, field=field)
