"""Converts a file, and compares the answers of both. Other answers are an error."""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.optimize.conversion.operators import OPERATORS
from edgefleet.optimize.conversion.walk import Walk, attributes, unsupported
from edgefleet.optimize.evaluation_data import Arrays, CalibrationData
from edgefleet.optimize.onnx_steps import technique_of
from edgefleet.optimize.recipe import Simplify

_CASES: Final = 8  # compared, at most
_AGREE: Final = 1e-3  # largest difference of an output, as a share of its range


def convert(model: Path, made: Path, calibration: CalibrationData) -> None:
    """Write the ONNX file ``model`` as the float TFLite file ``made``.

    Raises PublisherError ``model_unsupported`` with the node that has no counterpart, or if both
    answer differently; ``step_failed`` if a runtime fails.
    """
    made.write_bytes(converted(_simplified(model, calibration)))
    cases = {name: array[:_CASES] for name, array in calibration.inputs.items()}
    for name, wanted in _onnx_answers(model, cases).items():
        got = _tflite_answers(made, cases)[name]
        span = float(np.ptp(wanted)) or 1.0
        worst = float(np.max(np.abs(got - wanted))) / span
        if not worst <= _AGREE:
            made.unlink()
            raise PublisherError(
                "model_unsupported",
                f"The TFLite file answers otherwise than the ONNX file: output {name!r} by "
                f"{worst:.2%} of its range.",
                field="model",
                hint="Give a TFLite file of the same model too.",
            )


def converted(model: Any) -> bytes:
    """The TFLite file of an ONNX graph. Raises PublisherError ``model_unsupported``."""
    import onnx  # noqa: PLC0415 - 31 MiB

    walk = Walk(model)
    for node in walk.nodes:
        if node.op_type == "Constant":
            value = attributes(node).get("value")
            if value is None:
                raise unsupported(node, "it is no tensor")
            walk.constants[node.output[0]] = np.asarray(onnx.numpy_helper.to_array(value))
            continue
        function = OPERATORS.get(node.op_type)
        if function is None or node.domain not in ("", "ai.onnx"):
            raise unsupported(node, "TFLite has no operator for it here")
        walk.values[node.output[0]] = function(walk, node)
    return walk.finished(walk.nodes[-1])


def _simplified(model: Path, calibration: CalibrationData) -> Any:
    """The graph with batch normalisation merged and constants folded, if the tool can."""
    import onnx  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simplified.onnx"
        try:
            technique_of(Simplify()).apply(Simplify(), model, calibration, path)
        except EdgefleetError:
            return onnx.load(model)
        return onnx.load(path)


def _onnx_answers(model: Path, cases: Arrays) -> Arrays:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session: Any = onnxruntime.InferenceSession(model, options, providers=providers)
    names = [one.name for one in session.get_outputs()]
    size = session.get_inputs()[0].shape[0]
    parts = _parts(cases, size if isinstance(size, int) else 1)
    return _joined(names, [session.run(names, part) for part in parts])


def _tflite_answers(model: Path, cases: Arrays) -> Arrays:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    interpreter: Any = Interpreter(model_path=str(model), num_threads=1)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.allocate_tensors()
    found = []
    for part in _parts(cases, int(inputs[0]["shape"][0])):
        for one in inputs:
            interpreter.set_tensor(one["index"], part[one["name"]])
        interpreter.invoke()
        found.append([interpreter.get_tensor(one["index"]) for one in outputs])
    return _joined([one["name"] for one in outputs], found)


def _parts(cases: Arrays, size: int) -> list[Arrays]:
    """The cases in batches of ``size``; the last one is left out if it is smaller."""
    count = min(map(len, cases.values()))
    return [
        {name: np.ascontiguousarray(array[at : at + size]) for name, array in cases.items()}
        for at in range(0, count - size + 1, size)
    ]


def _joined(names: list[str], found: list[list[Any]]) -> Arrays:
    if not found:
        raise PublisherError(
            "calibration_invalid", "There are fewer cases than the model's batch.",
            field="calibration",
        )  # fmt: skip
    return {
        name: np.concatenate([one[place] for one in found]).astype(np.float64)
        for place, name in enumerate(names)
    }
