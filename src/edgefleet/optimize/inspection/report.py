"""The report of ``edgefleet model inspect`` on a model file."""

from collections.abc import Mapping

from edgefleet.optimize.inspection.fit import ProfileFit
from edgefleet.optimize.inspection.graph import MemoryEstimate, OperatorFacts
from edgefleet.protocol.release import TensorSpec
from edgefleet.protocol.wire import Wire


class ModelReport(Wire, frozen=True, kw_only=True):
    """A model file. ``min_runtime`` is empty if no known version of the runtime loads it.

    ``runtimes`` can load the file. ``ir_version`` of a TFLite file is the version of its schema.
    ``raw_inputs`` and ``raw_outputs`` are the integers of a quantised TFLite file, which a device
    also serves with ``tensors = "raw"``. ``precision`` is that of most weights, whose bytes
    ``weights_bytes`` has by datatype.
    """

    file: str
    size_bytes: int
    producer: str
    ir_version: int
    opset: int
    ml_opset: int
    min_runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    class_scores: tuple[str, ...]
    runtimes: tuple[str, ...] = ()
    raw_inputs: tuple[TensorSpec, ...] = ()
    raw_outputs: tuple[TensorSpec, ...] = ()
    operators: tuple[OperatorFacts, ...] = ()
    parameters: int = 0
    precision: str = ""
    weights_bytes: Mapping[str, int] = {}
    memory: MemoryEstimate | None = None
    profiles: tuple[ProfileFit, ...] = ()
