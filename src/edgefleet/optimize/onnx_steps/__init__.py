"""Steps that make a candidate for ONNX Runtime from an ONNX file.

Each is a ``source_model.Technique``. The same arguments give the same bytes. ``technique_of`` finds
the one of a step; tools are imported when a step is applied.
"""

from collections.abc import Mapping
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.onnx_steps.dynamic_int8 import DynamicInt8Step
from edgefleet.optimize.onnx_steps.half import HalfStep
from edgefleet.optimize.onnx_steps.simplify import SimplifyStep
from edgefleet.optimize.onnx_steps.static_int8 import StaticInt8Step
from edgefleet.optimize.onnx_steps.weight_int8 import WeightInt8Step
from edgefleet.optimize.recipe import DynamicInt8, Half, Simplify, StaticInt8, Step, WeightInt8
from edgefleet.optimize.source_model import Technique

_TECHNIQUES: Final[Mapping[type[Step], Technique]] = {
    StaticInt8: StaticInt8Step(),
    DynamicInt8: DynamicInt8Step(),
    WeightInt8: WeightInt8Step(),
    Half: HalfStep(),
    Simplify: SimplifyStep(),
}


def technique_of(step: Step) -> Technique:
    """Raises PublisherError ``step_failed`` for a step that has no technique for ONNX files."""
    if (found := _TECHNIQUES.get(type(step))) is None:
        raise PublisherError(
            "step_failed",
            f"No technique applies the step {step.__struct_config__.tag} to an ONNX file.",
            hint="Pruning and distillation need a training function: pass trainer=.",
        )
    return found
