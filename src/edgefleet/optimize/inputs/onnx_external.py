"""ONNX models whose weights are in files beside them, as MLflow and PyTorch write larger models.

The rest of edgefleet reads one file, so the weights are brought into it. The addresses of those
files come from the model: only plain files below its folder are read.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from edgefleet.base.errors import PublisherError
from edgefleet.serving.limits import MODEL_BYTES

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

_MARK: Final = b"location"  # the key that each tensor with external data has
_KEYS: Final = ("location", "offset", "length")


def with_weights_inside(path: Path, work: Path) -> Path:
    """``path``, or a file in ``work`` that also has the weights of the files beside it.

    Raises PublisherError ``model_unsupported`` for a file of weights that is outside of the
    folder, a link, missing or too short, or if all have more than 2 GiB.
    """
    size_bytes = path.stat().st_size
    if size_bytes > MODEL_BYTES:
        return path  # refused by inspect_model
    data = path.read_bytes()
    if _MARK not in data:
        return path
    import onnx  # noqa: PLC0415 - 31 MiB
    from google.protobuf.message import (  # type: ignore[import-untyped] # noqa: PLC0415
        DecodeError,
    )

    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return path  # refused by inspect_model
    external = [one for one in _tensors(model) if one.data_location == onnx.TensorProto.EXTERNAL]
    if not external:
        return path
    left = MODEL_BYTES - size_bytes
    for tensor in external:
        values = _read(tensor, path.parent, left)
        left -= len(values)
        tensor.raw_data = values
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    made = work / path.name
    made.write_bytes(model.SerializeToString())
    return made


def _tensors(model: "ModelProto") -> "Iterator[TensorProto]":
    """The weights of all graphs, and the constants of all nodes."""
    graphs: list[GraphProto] = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            graphs.extend((attribute.g, *attribute.graphs))


def _read(tensor: "TensorProto", folder: Path, left: int) -> bytes:
    """The bytes of one tensor."""
    place = {entry.key: entry.value for entry in tensor.external_data if entry.key in _KEYS}
    name = place.get("location", "")
    try:
        offset = int(place.get("offset", 0))
        length = int(place["length"]) if "length" in place else None
    except ValueError:
        offset = -1
        length = None
    if offset < 0 or (length is not None and length < 0):
        raise _refused(f"Tensor {tensor.name!r} has no valid place in {name!r}.")
    descriptor = _opened(folder, name)
    with os.fdopen(descriptor, "rb") as file:
        size_bytes = os.fstat(descriptor).st_size
        length = size_bytes - offset if length is None else length
        if offset + length > size_bytes:
            raise _refused(
                f"{name!r} has {size_bytes} bytes, and tensor {tensor.name!r} needs the first "
                f"{offset + length}.",
                "Copy the model again with all its files.",
            )
        if length > left:
            raise _refused(
                f"The model and its files have more than {MODEL_BYTES:,} bytes.",
                "Use a smaller model: one file may have 2 GiB.",
            )
        file.seek(offset)
        return file.read(length)


def _opened(folder: Path, name: str) -> int:
    """A descriptor of the file. Links are refused: they lead out of the folder unseen."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise _refused(f"The file of weights {name!r} is outside of the folder of the model.")
    path = folder
    for part in parts.parts:
        path /= part
        if path.is_symlink():
            raise _refused(f"The file of weights {name!r} is a link.")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(
            f"The file of weights {name!r} cannot be read: {error.strerror}.",
            "Copy the model with all its files.",
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        told = "has several names (hard links)" if found.st_nlink > 1 else "is not a plain file"
        raise _refused(f"The file of weights {name!r} {told}.")
    return descriptor


def _refused(message: str, hint: str = "") -> PublisherError:
    return PublisherError(
        "model_unsupported",
        message,
        field="external_data",
        hint=hint or "Copy the file into the folder of the model, or save the model as one file.",
    )
