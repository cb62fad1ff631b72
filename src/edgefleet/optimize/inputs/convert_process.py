"""Converts a model of another tool: a child process under a Python that has its converter.

Foreign bytes are parsed here, in a process that may die. See ``conversion`` for the parent.
"""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Final

from msgspec import field

from edgefleet.base.errors import DeviceError
from edgefleet.optimize.child import serve_child
from edgefleet.optimize.inputs.model_format import TREES, Format
from edgefleet.protocol.wire import Wire

PACKAGES: Final = {
    "xgboost": ("onnxruntime", "onnxmltools", "xgboost"),
    "lightgbm": ("onnxruntime", "onnxmltools", "lightgbm"),
    "keras": ("tensorflow", "tf2onnx", "onnxruntime"),
    "hdf5": ("tensorflow", "tf2onnx", "onnxruntime"),
    "saved_model": ("tensorflow", "tf2onnx", "onnxruntime"),
}
_DISTRIBUTIONS: Final = {"tensorflow": "tensorflow-cpu", "xgboost": "xgboost-cpu"}


class ConvertRequest(Wire, frozen=True, kw_only=True):
    """Convert the model ``path`` to files in the folder ``made``. Without it only ask versions."""

    format: Format
    path: str = ""
    made: str = ""


class Converted(Wire, frozen=True, kw_only=True):
    """Names of files in the folder, and the versions of what made them.

    ``facts`` is what the model says of itself, such as the names of its columns.
    """

    files: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


def convert(request: ConvertRequest) -> Converted:
    """Convert. Raises PublisherError ``model_unsupported``, DeviceError ``runtime_missing``."""
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that spin cost minutes on a busy machine
    versions = _versions(request.format)
    if not request.path:
        return Converted(versions=versions)
    path, made = Path(request.path), Path(request.made)
    if request.format in TREES:
        from edgefleet.optimize.inputs.convert_trees import (  # noqa: PLC0415 - its packages
            convert_trees,
        )

        facts = convert_trees(request.format, path, made / "model.onnx")
        return Converted(files=("model.onnx",), versions=versions, facts=facts)
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND":
                   "tensorflow"}  # fmt: skip
    from edgefleet.optimize.inputs.convert_keras import convert_keras  # noqa: PLC0415 - likewise

    files = convert_keras(request.format, path, made)
    return Converted(files=files, versions=versions)


def _versions(kind: str) -> dict[str, str]:
    """The installed versions. Raises DeviceError ``runtime_missing``."""
    found: dict[str, str] = {}
    for name in PACKAGES[kind]:
        try:
            found[name] = _version(name)
        except ImportError as error:  # PackageNotFoundError is one
            packages = " ".join(_DISTRIBUTIONS.get(one, one) for one in PACKAGES[kind])
            raise DeviceError(
                "runtime_missing",
                f"Converting this model needs {name}, which {sys.executable} has not.",
                field="converter-python",
                hint=f"Run: python -m venv converters && converters/bin/pip install "
                f"'edgefleet[optimize]' {packages}; then give --converter-python "
                "converters/bin/python.",
            ) from error
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        try:
            return version(_DISTRIBUTIONS.get(name, name))
        except ImportError:
            return str(import_module(name).__version__)


if __name__ == "__main__":
    sys.exit(serve_child(ConvertRequest, convert))
