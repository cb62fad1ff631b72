"""The steps that ai-edge-quantizer makes, as a ``Technique``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.optimize.evaluation_data import CalibrationData
from edgefleet.optimize.recipe import DynamicInt8, FixBatch, Half, StaticInt8, Step, WeightInt8
from edgefleet.optimize.samples import Array
from edgefleet.optimize.tflite_steps import quantizer
from edgefleet.optimize.tflite_steps.calibration import batches
from edgefleet.optimize.tflite_steps.graph import FloatModel, finished, fixed, float_model
from edgefleet.optimize.tflite_steps.quantizer import Rule
from edgefleet.serving.tflite_file import read_tflite

_BITS: Final[Mapping[str, int]] = {"int8": 8, "int16": 16}
_WORDS_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class TfliteTechnique:
    """Static, dynamic and weight-only INT8, and FP16, from a float TFLite file.

    ``StaticInt8.keep_float`` has names of operators (``graph.Operator.name``) or their types, such
    as ``SOFTMAX``. FP16 halves the weights: LiteRT expands them when it loads the file and computes
    in FP32, unless its delegate computes in FP16 (GPUs, NPUs and ARMv8.2).
    """

    tools: Mapping[str, str] = field(default_factory=dict)  # replaces the versions, for tests

    def apply(self, step: Step, model: Path, calibration: CalibrationData, made: Path) -> None:
        """Make the file ``made`` from ``model``. The same arguments give the same bytes.

        Raises PublisherError ``step_failed`` if the step is none of this technique, a field of it
        is none that TFLite has, or the tool fails; ``calibration_invalid`` for calibration data
        that do not fit the model.
        """
        source = float_model(model.read_bytes())
        if isinstance(step, FixBatch):
            made.write_bytes(fixed(source.data))
            return
        rules = _rules(step, source)
        given: list[dict[str, Array]] = []
        if isinstance(step, StaticInt8):
            given = batches(calibration, read_tflite(source.data).inputs, source.inputs)
        try:
            data = quantizer.quantised(source.data, rules, source.signature, given)
        except EdgefleetError:
            raise
        except Exception as error:  # the tool raises whatever its parts raise
            words = " ".join(str(error).split())[:_WORDS_CHARS] or type(error).__name__
            raise PublisherError(
                "step_failed", f"ai-edge-quantizer failed: {words}", field=_tag(step)
            ) from error
        made.write_bytes(finished(data, source))

    def versions(self) -> Mapping[str, str]:
        """The quantizer, and the runtime whose interpreter finds the ranges."""
        from importlib.metadata import version  # noqa: PLC0415 - rarely used

        return self.tools or {
            **quantizer.versions(),
            "ai-edge-litert": version("ai-edge-litert"),
        }


def _rules(step: Step, source: FloatModel) -> list[Rule]:
    match step:
        case StaticInt8():
            return _static(step, source)
        case DynamicInt8(operators=()):
            return [Rule("dynamic")]
        case DynamicInt8(operators=operators):
            return [Rule("dynamic", operator=_weighted(name)) for name in operators]
        case WeightInt8():
            return [Rule("weights")]
        case Half():
            return [Rule("half")]
        case _:
            raise PublisherError(
                "step_failed", f"TFLite has no step {_tag(step)}.", field=_tag(step)
            )


def _static(step: StaticInt8, source: FloatModel) -> list[Rule]:
    bits = _BITS.get(step.activations)
    if bits is None:
        raise PublisherError(
            "step_failed",
            f"TFLite has no {step.activations} activations. It has {' and '.join(_BITS)}.",
            field="static_int8.activations",
            hint="Set the activations of the profile to int8.",
        )
    if step.calibration != "minmax":
        raise PublisherError(
            "step_failed",
            f"ai-edge-quantizer has no {step.calibration} calibration. It has minmax.",
            field="static_int8.calibration",
            hint="Use minmax.",
        )
    if step.weight_bits != 8:
        raise PublisherError(
            "step_failed",
            f"TFLite has no weights of {step.weight_bits} bits: LiteRT adds without saturation.",
            field="static_int8.weight_bits",
            hint="Use 8.",
        )
    rules = [Rule("static", activation_bits=bits, per_channel=step.per_channel)]
    if not step.integer_io:
        rules += [Rule("float", operator="INPUT"), Rule("float", operator="OUTPUT")]
    return rules + [_kept(name, source) for name in step.keep_float]


def _kept(name: str, source: FloatModel) -> Rule:
    """A rule for the operator of that name, or for all of that type."""
    if any(one.name == name for one in source.operators):
        return Rule("float", scope=f"^{re.escape(name)};")
    if any(one.kind == name for one in source.operators):
        return Rule("float", operator=_operator(name))
    raise PublisherError(
        "step_failed",
        f"The model has no operator {name!r}. Its operators are "
        + ", ".join(f"{one.name} ({one.kind})" for one in source.operators)[:_WORDS_CHARS]
        + ".",
        field="static_int8.keep_float",
    )


def _operator(name: str) -> str:
    """The quantizer's name of a type of the schema."""
    return {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}.get(name, name)


def _weighted(name: str) -> str:
    found = _operator(name)
    if found not in quantizer.QUANTISABLE:
        raise PublisherError(
            "step_failed",
            f"Operators {name} have no weights that can be quantised. These have: "
            f"{', '.join(quantizer.QUANTISABLE)}.",
            field="dynamic_int8.operators",
        )
    return found


def _tag(step: Step) -> str:
    return str(step.__struct_config__.tag)
