"""Simplification: constants are folded, and nodes without effect removed."""

from collections.abc import Mapping
from pathlib import Path

from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.onnx_steps.graph import read_graph, tool_errors, tool_versions, write_graph
from edgefleet.optimize.recipe import Simplify, Step


class SimplifyStep:
    """``onnxslim``. It also merges batch normalisation into convolutions."""

    def apply(self, step: Step, model: Path, calibration: CalibrationData, made: Path) -> None:
        """Make the simplified file. See ``Technique.apply``."""
        del calibration
        if not isinstance(step, Simplify):
            raise TypeError(step)
        with tool_errors(step):
            import onnxslim  # noqa: PLC0415 - needed for this step only

            graph = onnxslim.slim(read_graph(model))
            del graph.graph.value_info[:]
            write_graph(graph, made)

    def versions(self) -> Mapping[str, str]:
        return tool_versions("onnxslim", "onnx", "numpy")
