"""A model that returns an input of each datatype."""

from pathlib import Path

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from edgefleet.protocol.release import Quality, TensorSpec
from edgefleet.protocol.serving import ServedModel, ServedRelease
from support.tiny_models import save, variant_of

VALUES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 1, 255]], np.uint8),
    "UINT16": np.array([[0, 1, 65_535]], np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 1, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 1, 127]], np.int8),
    "INT16": np.array([[-32_768, 1, 32_767]], np.int16),
    "INT32": np.array([[-(2**31), 1, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 1, 2**63 - 1]], np.int64),
    "FP16": np.array([[-1.5, 0.0, 65_504.0]], np.float16),
    "BF16": np.array([[-1.5, 0.1, 3e38]], ml_dtypes.bfloat16),
    "FP32": np.array([[-1.5, 0.1, 3e38]], np.float32),
    "FP64": np.array([[-1.5, 0.1, 1e300]], np.float64),
    "BYTES": np.array([["", "é", "a\0b"]], np.object_),
}
_KINDS = {
    **{name: helper.np_dtype_to_tensor_dtype(one.dtype) for name, one in VALUES.items()},
    "BYTES": TensorProto.STRING,
}
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of InferTensorContents for each datatype that has one."""


def typed_model(folder: Path, datatype: str, isolation: str = "shared") -> ServedModel:
    """A model named as ``datatype`` in lower case, from input ``x`` to output ``y``."""
    path = folder / f"{datatype}-{isolation}.onnx"
    kind = _KINDS[datatype]
    given = helper.make_tensor_value_info("x", kind, ["b", 3])
    made = helper.make_tensor_value_info("y", kind, ["b", 3])
    save(path, [helper.make_node("Identity", ["x"], ["y"])], [given], [made], [])
    inputs = (TensorSpec(name="x", datatype=datatype, shape=(-1, 3)),)  # type: ignore[arg-type] # the keys are datatypes
    outputs = (TensorSpec(name="y", datatype=datatype, shape=(-1, 3)),)  # type: ignore[arg-type] # as above
    quality = Quality(output="y", scores="logits") if datatype == "FP32" else None
    release = ServedRelease(
        release="1",
        variant=variant_of(path, inputs, outputs),
        quality=quality,
        artifact_path=str(path),
    )
    return ServedModel(model=datatype.lower(), isolation=isolation, confirmed=release)  # type: ignore[arg-type] # one of two
