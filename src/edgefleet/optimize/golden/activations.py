"""The activations inside of an ONNX model, to find the cases with extremes of each channel."""

import numpy as np
import onnx
import onnxruntime

from edgefleet.optimize.evaluation_data import Arrays
from edgefleet.optimize.samples import Array

_OPERATORS = ("Conv", "Gemm", "MatMul", "BatchNormalization", "Relu", "Clip", "Add")
_BATCH = 64
_QUIET = 4


def channel_peaks(model: bytes, inputs: Arrays) -> Arrays:
    """The largest value of each channel in each case, by tensor: arrays [cases, channels].

    Of the tensors that common operators make, with the channel as the second axis. The peaks alone
    are kept, so that large tensors need no memory. Errors are those of ONNX Runtime.
    """
    proto = onnx.load_from_string(model)
    outputs = {one.name for one in proto.graph.output}
    names = [
        node.output[0]
        for node in proto.graph.node
        if node.op_type in _OPERATORS and node.output[0] not in outputs
    ]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    cases = min(map(len, inputs.values()))
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for start in range(0, cases, _BATCH):
        batch = {name: array[start : start + _BATCH] for name, array in inputs.items()}
        for name, made in zip(names, session.run(names, batch), strict=True):
            if made.ndim > 1:
                parts[name].append(made.reshape(*made.shape[:2], -1).max(axis=2))
    return {name: np.concatenate(found) for name, found in parts.items() if found}
