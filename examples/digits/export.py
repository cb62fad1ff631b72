"""The network as ONNX, once for each precision. Pixels 0..16 go in, probabilities come out.

All three take and give FP32, so that a client need not know which one a device runs.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from digits import INK, Pixels
from network import Network
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

INPUT, OUTPUT = "pixels", "probabilities"


def to_onnx(
    network: Network, model: str, *, white: float = INK, half: bool = False
) -> onnx.ModelProto:
    """``white`` is what the graph divides pixels by; ``half`` computes the layers in FP16."""
    kind = np.float16 if half else np.float32
    scale = numpy_helper.from_array(np.array(1 / white, np.float32), "scale")
    nodes = [helper.make_node("Mul", [INPUT, "scale"], ["scaled"], "scale_pixels")]
    arrays, last = [scale], "scaled"
    if half:
        nodes.append(helper.make_node("Cast", [last], ["half"], "to_half", to=TensorProto.FLOAT16))
        last = "half"
    for number, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        names = [f"weight{number}", f"bias{number}"]
        arrays += [
            numpy_helper.from_array(np.ascontiguousarray(array.astype(kind)), name)
            for array, name in zip((weight.T, bias), names, strict=True)
        ]
        nodes.append(
            helper.make_node("Gemm", [last, *names], [f"sum{number}"], f"layer{number}", transB=1)
        )
        last = f"sum{number}"
        if number + 1 < len(network.weights):
            nodes.append(helper.make_node("Relu", [last], [f"layer{number}_out"], f"relu{number}"))
            last = f"layer{number}_out"
    if half:
        nodes.append(helper.make_node("Cast", [last], ["logits"], "to_float", to=TensorProto.FLOAT))
        last = "logits"
    nodes.append(helper.make_node("Softmax", [last], [OUTPUT], "softmax", axis=1))
    graph = helper.make_graph(
        nodes,
        model,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info(
                OUTPUT, TensorProto.FLOAT, ["batch", len(network.biases[-1])]
            )
        ],
        arrays,
    )
    return helper.make_model(
        graph,
        producer_name=f"edgefleet {model} example",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def to_int8(model: onnx.ModelProto, calibration: Pixels) -> onnx.ModelProto:
    """Static quantisation: 8-bit weights per channel, 8-bit activations between the layers."""
    with tempfile.TemporaryDirectory() as folder:
        plain, source, target = (Path(folder, name) for name in ("plain", "source", "target"))
        onnx.save(model, plain)
        quant_pre_process(plain, source, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            source,
            target,
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Gemm", "Relu"],
            per_channel=True,
            # Products of 8 x 8 bits overflow on x86 without VNNI; 7-bit weights never do.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load(target)
    del quantised.metadata_props[:]  # the quantiser's notes to itself
    return quantised


class _Calibration(CalibrationDataReader):
    """One batch of training images."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches = iter([{INPUT: pixels.astype(np.float32)}])

    def get_next(self) -> dict[str, np.ndarray]:
        return next(self._batches, {})
