"""Static INT8: QDQ nodes around the operators of an ONNX graph, ranges from calibration data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.data_checks import check_inputs
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.onnx_steps.bias_correction import correct_biases
from edgefleet.optimize.onnx_steps.calibration import BatchReader
from edgefleet.optimize.onnx_steps.graph import read_graph, tool_errors, tool_versions, write_graph
from edgefleet.optimize.recipe import StaticInt8, Step
from edgefleet.serving.model_file import inspect_model

_FLOAT_OPERATORS: Final = frozenset({"Softmax"})
"""Stay in float: 8 bits cannot hold small probabilities, and the operator is cheap."""


class StaticInt8Step:
    """``onnxruntime.quantization.quantize_static`` in the format QDQ."""

    def apply(self, step: Step, model: Path, calibration: CalibrationData, made: Path) -> None:
        """Make the quantised file. See ``Technique.apply``.

        Raises PublisherError ``calibration_invalid`` with the input that does not fit the model,
        ``step_failed`` with the words of the tool.
        """
        if not isinstance(step, StaticInt8):
            raise TypeError(step)
        if step.integer_io:
            raise PublisherError(
                "step_failed",
                "ONNX files keep the types of their inputs and outputs: integer_io is for TFLite.",
            )
        facts = inspect_model(model)
        check_inputs(calibration.inputs, facts.inputs, "calibration")
        with tool_errors(step):
            graph = read_graph(model)
            _check_nodes(graph, step.keep_float)
            if step.correct_bias:
                correct_biases(graph, step, BatchReader(calibration, facts.inputs))
            _quantize(graph, step, BatchReader(calibration, facts.inputs), made)
            write_graph(read_graph(made), made)

    def versions(self) -> Mapping[str, str]:
        return tool_versions("onnxruntime", "onnx", "numpy")


def _quantize(graph: Any, step: StaticInt8, reader: Any, made: Path) -> None:
    from onnxruntime.quantization import (  # noqa: PLC0415 - 1 s, needed for steps only
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.registry import QDQRegistry  # noqa: PLC0415

    activations = {
        "uint8": QuantType.QUInt8,
        "int8": QuantType.QInt8,
        "int16": QuantType.QInt16,
    }[step.activations]
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    quantize_static(
        graph,
        made,
        reader,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=sorted(QDQRegistry.keys() - _FLOAT_OPERATORS),
        per_channel=step.per_channel,
        reduce_range=step.weight_bits == 7,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=sorted(step.keep_float),
        calibrate_method=methods[step.calibration],
        extra_options={"CalibStridedMinMax": BatchReader.STRIDE},
    )


def _check_nodes(graph: Any, keep_float: tuple[str, ...]) -> None:
    """Raises PublisherError ``step_failed`` for a node that the graph does not have."""
    known = {node.name for node in graph.graph.node}
    if unknown := sorted(set(keep_float) - known):
        raise PublisherError(
            "step_failed",
            f"The model has no node {unknown[0]!r} that could stay in float.",
            field="keep_float",
            hint="Name nodes of the file that the step gets: `edgefleet model inspect` shows them.",
        )
