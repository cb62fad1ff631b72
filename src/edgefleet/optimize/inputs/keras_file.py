"""Checks the description of a Keras model before Keras reads it: it may name code to run."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from edgefleet.base.errors import PublisherError

_CONFIG: Final = "config.json"
_CONFIG_BYTES: Final = 16 << 20
_ENTRIES: Final = 1_000
_CODE: Final = frozenset({"Lambda", "TFSMLayer", "__lambda__"})
_PACKAGES: Final = frozenset({
    "activations", "applications", "constraints", "dtype_policies", "initializers", "layers",
    "losses", "metrics", "models", "optimizers", "regularizers",
})  # fmt: skip
_ZIP_FAULTS: Final = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError)


def names_in(path: Path) -> frozenset[str]:
    """The names in a zip archive. Empty if it is damaged or has more than 1,000."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _ZIP_FAULTS:
        return frozenset()
    return frozenset(names) if len(names) <= _ENTRIES else frozenset()


def check_keras_file(path: Path) -> None:
    """Check a file in the format .keras.

    Raises PublisherError ``model_unsupported`` for a layer that is code, ``not_a_model``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(_CONFIG)
            if info.file_size > _CONFIG_BYTES:
                raise ValueError(f"{_CONFIG} has {info.file_size} bytes")
            with archive.open(info) as file:
                text = file.read(_CONFIG_BYTES)
    except (*_ZIP_FAULTS, KeyError) as error:
        raise PublisherError(
            "not_a_model", f"{path.name} is a damaged Keras file: {error}.", field="model"
        ) from error
    check_config(text, path.name)


def check_config(text: bytes | str, name: str) -> None:
    """Check the description of the model called ``name``.

    Only layers of Keras itself are allowed: others are code that the publisher has and this
    machine has not, or Python that the file carries. Raises PublisherError ``model_unsupported``.
    """
    try:
        config = json.loads(text)
    except ValueError as error:  # RecursionError is left to Python: 16 MiB may nest deeper
        raise PublisherError(
            "not_a_model", f"The description in {name} is not JSON: {error}.", field="model"
        ) from error
    for part in _objects(config):
        kind, module = part.get("class_name"), part.get("module")
        if kind in _CODE:
            raise PublisherError(
                "model_unsupported",
                f"{name} has a layer {kind}, which is code in the file. It is never run.",
                field="model",
                hint="Replace it by layers of Keras (keras.ops in a functional model), or export "
                "the model where it was trained: model.export('model.onnx', format='onnx').",
            )
        foreign = isinstance(module, str) and not _is_known(module)
        if foreign or (isinstance(kind, str) and part.get("registered_name") not in (None, kind)):
            raise PublisherError(
                "model_unsupported",
                f"{name} uses {part.get('registered_name') or kind} of {module or 'your code'}, "
                "which is not part of Keras.",
                field="model",
                hint="Export the model where its code is: model.export('model.onnx', "
                "format='onnx').",
            )


def _is_known(module: str) -> bool:
    """Whether ``module`` is one whose objects are parts of models. ``builtins`` has data types."""
    package, _, rest = module.partition(".")
    if package != "keras":
        return module == "builtins"
    return not rest or rest.removeprefix("src.").partition(".")[0] in _PACKAGES


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    """All JSON objects in ``value``."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
