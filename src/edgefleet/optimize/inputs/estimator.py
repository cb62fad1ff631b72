"""A fitted scikit-learn estimator in this process as an ONNX file.

The publisher's own program has the estimator already, so no pickle is read. skl2onnx is the
publisher's package, and not one of edgefleet.
"""

from pathlib import Path
from typing import Any

from edgefleet.base.errors import DeviceError, PublisherError
from edgefleet.base.texts import shortened
from edgefleet.optimize.samples import Array
from edgefleet.optimize.source import read_source
from edgefleet.optimize.source_model import SourceModel
from edgefleet.serving.limits import DETAIL_CHARS


def from_sklearn(estimator: Any, inputs: Array, made: Path) -> SourceModel:
    """Convert the estimator to the file ``made``, with an open batch and without ZipMap.

    ``inputs`` are some of its inputs, cases first: their type and shape are those of the model.
    Raises DeviceError ``runtime_missing`` without skl2onnx, PublisherError ``model_unsupported`` if
    skl2onnx has no converter for it.
    """
    try:
        from skl2onnx import (  # type: ignore[import-untyped] # noqa: PLC0415 - of the publisher
            to_onnx,
        )
    except ImportError as error:
        raise DeviceError(
            "runtime_missing",
            "Converting a scikit-learn model needs skl2onnx, which is not installed.",
            field="model",
            hint="Run: pip install skl2onnx",
        ) from error
    options = {"zipmap": False} if hasattr(estimator, "classes_") else None
    try:
        model: Any = to_onnx(estimator, inputs[:1], options=options)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        words = shortened(" ".join(str(error).split()), DETAIL_CHARS)
        raise PublisherError(
            "model_unsupported",
            f"skl2onnx cannot convert {type(estimator).__name__}: {words}",
            field="model",
            hint="Fit the estimator first; skl2onnx lists those that it supports.",
        ) from error
    made.write_bytes(model.SerializeToString())
    return read_source(made)
