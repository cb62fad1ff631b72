"""A session of ONNX Runtime with one thread that does not spin, to compare a converted model."""

from pathlib import Path
from typing import Any


def onnx_session(path: Path) -> Any:
    """The session, on the CPU."""
    import onnxruntime  # noqa: PLC0415 - where the converters are

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
