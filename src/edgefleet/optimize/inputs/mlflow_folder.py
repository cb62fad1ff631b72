"""The model in an MLflow folder, with its run and versions for the lineage.

The folder has a file ``MLmodel`` (YAML) that lists flavours of one model. The flavour ``onnx`` is
taken first, then those with a file that a converter reads: others are pickles or need the training
framework. Nothing of the folder is executed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.base.ids import sha256_hex
from edgefleet.protocol.device import Digest

MLMODEL: Final = "MLmodel"
_BYTES: Final = 1 << 20
_TOP: Final = ("run_id", "model_uuid", "model_id", "mlflow_version", "utc_time_created")
_READ: Final = ("onnx", "xgboost", "lightgbm", "keras", "tensorflow")
_IN_DATA: Final = ("model.keras", "model.h5", "model", "saved_model", "tfmodel")
_PICKLES: Final = ("sklearn", "lightgbm", "pytorch", "python_function")
_PICKLED: Final = (".pkl", ".pickle", ".joblib")


@dataclass(frozen=True, slots=True)
class MlflowModel:
    """The file or folder of a flavour. ``parent`` is the digest of ``MLmodel``.

    ``lineage`` are the run and the versions that ``MLmodel`` names.
    """

    path: Path
    parent: Digest
    lineage: Mapping[str, object]


def read_mlflow(folder: Path) -> MlflowModel:
    """The model of the folder in the first flavour that edgefleet reads.

    Raises PublisherError ``model_is_pickle`` if the model is there as a pickle only,
    ``model_unsupported`` for other flavours and for a file outside of the folder, ``not_a_model``
    for a folder that cannot be read.
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
    kept = {f"mlflow_{name.removeprefix('mlflow_')}": facts[name] for name in _TOP if name in facts}
    flavours = sorted({key.split(".")[1] for key in facts if key.startswith("flavors.")})
    for flavour in _READ:
        if flavour in flavours and (path := _inside(folder, facts, flavour)) is not None:
            return MlflowModel(path, sha256_hex(data), {**kept, "mlflow_flavour": flavour})
    is_pickle = any(one in _PICKLES for one in flavours)
    raise PublisherError(
        "model_is_pickle" if is_pickle else "model_unsupported",
        f"The MLflow model has the flavours {', '.join(flavours) or 'none'}, and none with a file "
        f"that edgefleet reads ({', '.join(_READ)}).",
        field="model",
        hint="Log it as ONNX beside the other: mlflow.onnx.log_model(onnx_model, name='model'). "
        "For scikit-learn, skl2onnx makes onnx_model. A pickle can run code, so none is read.",
    )


def _inside(folder: Path, facts: Mapping[str, str], flavour: str) -> Path | None:
    """The file of the flavour. None for a pickle, and where nothing that can be read is there."""
    key = "saved_model_dir" if flavour == "tensorflow" else "data"
    name = facts.get(f"flavors.{flavour}.{key}") or facts.get(f"flavors.{flavour}.data") or ""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PublisherError(
            "model_unsupported",
            f"The file of the model, {name!r}, is outside of the MLflow folder.",
            field="model",
            hint="Download the whole model with `mlflow artifacts download`.",
        )
    if not name or path == folder.resolve() or path.suffix in _PICKLED:
        return None
    if flavour in ("keras", "tensorflow") and path.is_dir():
        places = (path, *(path / one for one in _IN_DATA))
        found = (one for one in places if one.is_file() or (one / "saved_model.pb").is_file())
        return next(found, None)
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
