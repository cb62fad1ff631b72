"""An MLflow model folder as a source model, with its run and versions for the lineage.

The folder has a file ``MLmodel`` (YAML) that lists flavours of one model. Only the flavour ``onnx``
is read: the others are pickles or need the training framework. Nothing of the folder is executed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.optimize.source import read_source
from edgefleet.optimize.source_model import SourceModel

MLMODEL: Final = "MLmodel"
_BYTES: Final = 1 << 20
_TOP: Final = ("run_id", "model_uuid", "model_id", "mlflow_version", "utc_time_created")
_PICKLES: Final = ("sklearn", "xgboost", "lightgbm", "pytorch", "python_function")


def is_mlflow(path: Path) -> bool:
    """Whether ``path`` is an MLflow model folder."""
    return (path / MLMODEL).is_file()


def read_mlflow(folder: Path) -> SourceModel:
    """The ONNX model of the folder. Its parent is the digest of ``MLmodel``.

    Raises PublisherError ``model_is_pickle`` if the model is there in other flavours only,
    ``model_unsupported`` for a file outside of the folder, ``not_a_model`` for a folder that cannot
    be read, and the errors of ``inspect_model``.
    """
    try:
        with (folder / MLMODEL).open("rb") as file:
            data = file.read(_BYTES + 1)
        facts = dict(_scalars(data.decode()))
    except (OSError, UnicodeDecodeError) as error:
        raise PublisherError(
            "not_a_model", f"{folder / MLMODEL} cannot be read: {error}.", field="model"
        ) from error
    if len(data) > _BYTES:
        raise PublisherError(
            "not_a_model", f"{MLMODEL} has more than {_BYTES:,} bytes.", field="model"
        )
    source = read_source(_inside(folder, facts))
    kept = {f"mlflow_{name.removeprefix('mlflow_')}": facts[name] for name in _TOP if name in facts}
    return replace(source, parents=(sha256_hex(data),), lineage=kept)


def _inside(folder: Path, facts: Mapping[str, str]) -> Path:
    name = facts.get("flavors.onnx.data")
    if not name:
        flavours = sorted({key.split(".")[1] for key in facts if key.startswith("flavors.")})
        is_pickle = any(one in _PICKLES for one in flavours)
        raise PublisherError(
            "model_is_pickle" if is_pickle else "model_unsupported",
            f"The MLflow model has the flavours {', '.join(flavours) or 'none'}, and not onnx.",
            field="model",
            hint="Log it as ONNX beside the other: mlflow.onnx.log_model(onnx_model, 'model'). "
            "For scikit-learn, skl2onnx makes onnx_model. A pickle can run code, so none is read.",
        )
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PublisherError(
            "model_unsupported",
            f"The file of the model, {name!r}, is outside of the MLflow folder.",
            field="model",
            hint="Download the whole model with `mlflow artifacts download`.",
        )
    return path


def _scalars(text: str) -> Iterator[tuple[str, str]]:
    """The single values of nested mappings as ``a.b.c``, from the YAML that MLflow writes.

    Lists and texts of several lines are left out: nothing that is read here is one.
    """
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        key, colon, value = line.strip().partition(":")
        if not colon or not key or key[0] in "#-'\"{[" or (value and value[0] != " "):
            continue
        indent = len(line) - len(line.lstrip(" "))
        path = [one for one in path if one[0] < indent]
        value = value.strip()
        if not value:
            path.append((indent, key))
        elif value[0] not in "|>{[&*":
            yield ".".join((*(name for _, name in path), key)), _unquoted(value)


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
