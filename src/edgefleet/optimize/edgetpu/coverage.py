"""Which part of a TFLite file runs on an Edge TPU, by the table of operators and without one.

The compiler compiles one partition: the first run of supported operators in the order of the file.
The operators before it (a QUANTIZE from float) and all after the first unsupported one run on the
CPU. With its option ``-a`` it compiles more partitions, each with a transfer between the two.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from edgefleet.base.errors import PublisherError
from edgefleet.base.texts import counted
from edgefleet.optimize.edgetpu.operators import OperatorFacts, TensorFacts, why_not
from edgefleet.optimize.samples import Array
from edgefleet.optimize.tflite_steps.graph import operator_kinds, schema, tensor_text
from edgefleet.protocol.wire import Wire
from edgefleet.serving.tflite_file import is_tflite

_AFTER: Final = "supported, but after the first partition: the compiler maps one"
_NUMPY: Final = {
    "FLOAT32": np.float32, "INT32": np.int32, "INT64": np.int64, "INT8": np.int8, "UINT8": np.uint8,
}  # fmt: skip


class OperatorCoverage(Wire, frozen=True, kw_only=True):
    """One operator, by the name of its output. ``reason`` says why it runs on the CPU."""

    name: str
    kind: str
    mapped: bool
    reason: str = ""


class Coverage(Wire, frozen=True, kw_only=True):
    """The operators in the order of the file. ``partitions`` are the runs of supported ones."""

    operators: tuple[OperatorCoverage, ...]
    partitions: int

    @property
    def mapped(self) -> int:
        return sum(one.mapped for one in self.operators)

    @property
    def share(self) -> float:
        """The share of operators that run on the Edge TPU."""
        return self.mapped / len(self.operators) if self.operators else 0.0

    @property
    def text(self) -> str:
        """A sentence, with the first reason why the rest runs on the CPU."""
        whole = f"{self.mapped} of {counted(len(self.operators), 'operator')} map to the Edge TPU"
        first = next((one for one in self.operators if not one.mapped), None)
        if first is None:
            return f"{whole}."
        return f"{whole}. {first.kind} {first.name!r} runs on the CPU: {first.reason}."


def coverage(path: Path) -> Coverage:
    """The coverage of the first graph. Raises PublisherError ``not_a_model``."""
    data = path.read_bytes()
    if not is_tflite(data):
        raise PublisherError("not_a_model", "The Edge TPU runs TFLite files, and this is none.")
    try:
        found = _operators(schema().ModelT.InitFromPackedBuf(data, 0))
    except (IndexError, TypeError, AttributeError, ValueError, KeyError) as error:
        raise PublisherError("not_a_model", f"The TFLite file is damaged: {error}.") from error
    return covered(found)


def covered(operators: list[OperatorFacts]) -> Coverage:
    """The coverage of operators in the order in which they run."""
    reasons = [why_not(one) for one in operators]
    partitions = sum(
        not reason and (place == 0 or bool(reasons[place - 1]))
        for place, reason in enumerate(reasons)
    )
    start = next((place for place, one in enumerate(reasons) if not one), len(reasons))
    end = next((place for place in range(start, len(reasons)) if reasons[place]), len(reasons))
    return Coverage(
        operators=tuple(
            OperatorCoverage(
                name=operator.outputs[0].name,
                kind=operator.kind,
                mapped=start <= place < end,
                reason="" if start <= place < end else reasons[place] or _AFTER,
            )
            for place, operator in enumerate(operators)
        ),
        partitions=partitions,
    )


def _operators(model: Any) -> list[OperatorFacts]:
    graph, kinds = model.subgraphs[0], operator_kinds(model)
    types = {number: name for name, number in vars(schema().TensorType).items()
             if isinstance(number, int)}  # fmt: skip
    tensors = [_tensor(model, one, types[one.type]) for one in graph.tensors]
    return [
        OperatorFacts(
            kinds[one.opcodeIndex],
            tuple(tensors[place] if place >= 0 else None for place in one.inputs),
            tuple(tensors[place] for place in one.outputs),
            one.builtinOptions,
        )
        for one in graph.operators
    ]


def _tensor(model: Any, tensor: Any, datatype: str) -> TensorFacts:
    shape = () if tensor.shape is None else tuple(int(one) for one in tensor.shape)
    signature = () if tensor.shapeSignature is None else tensor.shapeSignature
    return TensorFacts(
        tensor_text(tensor.name),
        datatype,
        shape,
        any(int(one) == -1 for one in signature),
        _value(model, tensor, datatype),
    )


def _value(model: Any, tensor: Any, datatype: str) -> Array | None:
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    kind = _NUMPY.get(datatype, np.uint8)
    return np.frombuffer(bytes(data), kind)
