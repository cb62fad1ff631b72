"""Recipes: how a variant is made from a source model.

A recipe is a runtime and a chain of steps. Steps that change the weights (``Prune``, ``Distil``)
come first and need a training function; at most one step that changes the number format follows.
A recipe without steps is the source model as it is: the baseline of its runtime.
"""

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import fields

from edgefleet.protocol.release import Precision, Runtime
from edgefleet.protocol.wire import Wire

Share = Annotated[float, Meta(gt=0, lt=1)]


class StaticInt8(Wire, frozen=True, kw_only=True, tag_field="step", tag="static_int8"):
    """Weights and activations as 8-bit integers, with ranges from calibration data.

    ``keep_float`` names the nodes (ONNX) or the operators (TFLite) that stay in float.
    ``weight_bits`` (ONNX): 7 bits are exact on x86 CPUs without VNNI, where ONNX Runtime adds two
    products of 8 bits in 16 bits and saturates. ``correct_bias`` (ONNX): the biases take back the
    mean error of the rounded weights.
    """

    activations: Literal["uint8", "int8", "int16"] = "uint8"
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"
    per_channel: bool = True
    integer_io: bool = False  # inputs and outputs are int8, too
    weight_bits: Literal[7, 8] = 8
    correct_bias: bool = True
    keep_float: tuple[str, ...] = ()


class DynamicInt8(Wire, frozen=True, kw_only=True, tag_field="step", tag="dynamic_int8"):
    """Weights as 8-bit integers; ranges of activations are found in each run.

    ``operators`` are the types that are quantised. Empty: all that the runtime can.
    """

    operators: tuple[str, ...] = ()


class WeightInt8(Wire, frozen=True, kw_only=True, tag_field="step", tag="weight_int8"):
    """Weights as 8-bit integers, which the runtime expands. Computation stays in float."""


class Half(Wire, frozen=True, kw_only=True, tag_field="step", tag="fp16"):
    """Weights and computation as 16-bit floats. Inputs and outputs stay as they are."""


class Simplify(Wire, frozen=True, kw_only=True, tag_field="step", tag="simplify"):
    """Constant folding and the removal of nodes without effect."""


class FixBatch(Wire, frozen=True, kw_only=True, tag_field="step", tag="fix_batch"):
    """A batch of one instead of an open one, as the Edge TPU needs it. TFLite only."""


class Prune(Wire, frozen=True, kw_only=True, tag_field="step", tag="prune"):
    """A share of the weights is removed, then the model is trained for ``epochs``.

    ``structure``: whole channels; two of four neighbouring weights; or single weights, which
    makes the file no smaller, only its transfer.
    """

    share: Share = 0.5
    structure: Literal["channels", "2:4", "weights"] = "channels"
    epochs: Annotated[int, Meta(ge=0)] = 3


class Distil(Wire, frozen=True, kw_only=True, tag_field="step", tag="distil"):
    """A smaller student learns from the source model. ``student`` names it to the trainer.

    ``hard_share`` of the loss is that of the right answers, the rest that of the teacher's.
    """

    student: str
    epochs: Annotated[int, Meta(ge=1)] = 10
    temperature: Annotated[float, Meta(gt=0)] = 4.0
    hard_share: Annotated[float, Meta(ge=0, le=1)] = 0.3


Step = StaticInt8 | DynamicInt8 | WeightInt8 | Half | Simplify | FixBatch | Prune | Distil


def _text(step: Step) -> str:
    """The step, with its fields that are not the default. Of many nodes or operators the number."""
    words: list[str] = []
    for info in fields(step):
        value = getattr(step, info.name)
        if value == info.default:
            continue
        match value:
            case bool():
                words.append(info.name if value else f"no {info.name}")
            case tuple() if info.name == "keep_float":
                words.append(f"{len(value)} in float")
            case int() if info.name == "weight_bits":
                words.append(f"{value}-bit weights")
            case tuple():
                words.append(",".join(value))
            case _:
                words.append(str(value))
    tag = str(step.__struct_config__.tag)
    return f"{tag}({', '.join(words)})" if words else tag


class Recipe(Wire, frozen=True, kw_only=True):
    """A runtime and the steps to a variant for it."""

    runtime: Runtime
    steps: tuple[Step, ...] = ()

    @property
    def name(self) -> str:
        """For people, such as ``onnx prune+static_int8(entropy)``: what is not the default."""
        steps = "+".join(map(_text, self.steps))
        return f"{self.runtime} {steps or 'unchanged'}"

    @property
    def precision(self) -> Precision:
        """The precision that a manifest states for the result, if the source is FP32."""
        for step in reversed(self.steps):
            match step:
                case StaticInt8() | DynamicInt8() | WeightInt8():
                    return "int8"
                case Half():
                    return "fp16"
                case _:
                    continue
        return "fp32"
