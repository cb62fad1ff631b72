"""Dynamic INT8: weights as integers, ranges of activations found in each run."""

from collections.abc import Mapping
from pathlib import Path

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.onnx_steps.graph import read_graph, tool_errors, tool_versions, write_graph
from edgefleet.optimize.recipe import DynamicInt8, Step


class DynamicInt8Step:
    """``onnxruntime.quantization.quantize_dynamic``. Calibration data is not used.

    Scales are those of a whole batch, so the accuracy depends on the batch. Gemm is quantised as
    MatMul, which the tool makes of it.
    """

    def apply(self, step: Step, model: Path, calibration: CalibrationData, made: Path) -> None:
        """Make the quantised file. See ``Technique.apply``."""
        del calibration
        if not isinstance(step, DynamicInt8):
            raise TypeError(step)
        with tool_errors(step):
            from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415
            from onnxruntime.quantization.registry import IntegerOpsRegistry  # noqa: PLC0415

            graph = read_graph(model)
            known = sorted(IntegerOpsRegistry.keys())
            wanted = {"MatMul" if name == "Gemm" else name for name in step.operators}
            if unknown := sorted(wanted - set(known)):
                raise PublisherError(
                    "step_failed",
                    f"Operator {unknown[0]!r} cannot be quantised dynamically.",
                    field="operators",
                    hint=f"Name some of {', '.join(known)}.",
                )
            operators = sorted(wanted) or known
            # ConvInteger of the CPU provider takes unsigned weights only.
            unsigned = "Conv" in operators
            quantize_dynamic(
                graph,
                made,
                op_types_to_quantize=operators,
                per_channel=not unsigned,
                weight_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            )
            write_graph(read_graph(made), made)

    def versions(self) -> Mapping[str, str]:
        return tool_versions("onnxruntime", "onnx", "numpy")
