"""Finds the technique of a step for a runtime, and the runtime that measures another's files."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgefleet.base.errors import PublisherError
from edgefleet.optimize.recipe import Step
from edgefleet.optimize.source_model import Technique

MEASURED_BY: Final[Mapping[str, str]] = MappingProxyType({"tensorrt": "onnx", "edgetpu": "litert"})
"""Runtimes that need a device: their files are measured in the runtime that loads them here."""


def measured_runtime(runtime: str) -> str:
    """The runtime in which this machine measures files for ``runtime``."""
    return MEASURED_BY.get(runtime, runtime)


def technique_for(runtime: str, step: Step) -> Technique:
    """Raises PublisherError ``step_failed`` if the runtime has no technique for the step."""
    match measured_runtime(runtime):
        case "onnx":
            from edgefleet.optimize.onnx_steps import technique_of  # noqa: PLC0415

            return technique_of(step)
        case "litert":
            from edgefleet.optimize.tflite_steps.technique import TfliteTechnique  # noqa: PLC0415

            return TfliteTechnique()
        case other:
            raise PublisherError(
                "step_failed", f"edgefleet makes no variants for the runtime {other}."
            )
