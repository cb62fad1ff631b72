"""FP16: weights and computation as 16-bit floats, inputs and outputs as they are."""

from collections.abc import Mapping
from pathlib import Path

from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.onnx_steps.graph import (
    read_graph,
    sort_nodes,
    tool_errors,
    tool_versions,
    write_graph,
)
from edgefleet.optimize.recipe import Half, Step


class HalfStep:
    """``onnxruntime.transformers.float16``. Calibration data is not used."""

    def apply(self, step: Step, model: Path, calibration: CalibrationData, made: Path) -> None:
        """Make the FP16 file. See ``Technique.apply``."""
        del calibration
        if not isinstance(step, Half):
            raise TypeError(step)
        with tool_errors(step):
            from onnxruntime.transformers.float16 import (  # noqa: PLC0415
                convert_float_to_float16,
            )

            graph = convert_float_to_float16(read_graph(model), keep_io_types=True)
            del graph.graph.value_info[:]
            sort_nodes(graph.graph)
            write_graph(graph, made)

    def versions(self) -> Mapping[str, str]:
        return tool_versions("onnxruntime", "onnx", "numpy")
