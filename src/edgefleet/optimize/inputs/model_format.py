"""Finds the format of a model by its content, without running any of it."""

from pathlib import Path
from typing import Final, Literal

from edgefleet.base.errors import PublisherError

Format = Literal["file", "mlflow", "xgboost", "lightgbm", "keras", "hdf5", "saved_model"]
"""``file`` is all that ``read_source`` reads or refuses: ONNX, TFLite, pickles, others."""

TREES: Final = ("xgboost", "lightgbm")
_HEAD_BYTES: Final = 4096
_LIGHTGBM: Final = b"tree\nversion=v"
_OLD_XGBOOST: Final = b"binf"


def format_of(path: Path) -> Format:
    """The format of the file or folder.

    Raises PublisherError ``not_a_model`` for a folder that is no model, or a path that cannot be
    read; ``model_unsupported`` for the binary format of XGBoost before 3.
    """
    if path.is_dir():
        return _of_folder(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise PublisherError(
            "not_a_model", f"{path} cannot be read: {error.strerror}.", field="model"
        ) from error
    if head.startswith(_OLD_XGBOOST):
        raise PublisherError(
            "model_unsupported",
            f"{path.name} is in the old binary format of XGBoost.",
            field="model",
            hint="Save it with the version that wrote it: model.save_model('model.ubj').",
        )
    if head.startswith(_LIGHTGBM):
        return "lightgbm"
    if head.startswith(b"{") and b"learner" in head:  # JSON, and UBJSON, which begins alike
        return "xgboost"
    if head.startswith(b"\x89HDF"):
        return "hdf5"
    if head.startswith(b"PK\x03\x04") and _is_keras(path):
        return "keras"
    return "file"


def _of_folder(path: Path) -> Format:
    if (path / "MLmodel").is_file():
        return "mlflow"
    if (path / "saved_model.pb").is_file():
        return "saved_model"
    raise PublisherError(
        "not_a_model",
        f"{path} is a folder, and neither one of MLflow (MLmodel) nor a SavedModel "
        "(saved_model.pb).",
        field="model",
        hint="Name the file of the model, such as model.onnx.",
    )


def _is_keras(path: Path) -> bool:
    """Whether a zip archive has the three files of the format .keras."""
    from edgefleet.optimize.inputs.keras_file import names_in  # noqa: PLC0415 - zipfile

    return {"config.json", "metadata.json"} <= names_in(path)
